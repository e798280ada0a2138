"""The way out of a started sandbox: its policy, its proxy, and its variables with placeholders for secrets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interactd.nouns import Json
from interactd.sandbox.credentials.kinds import SecretSource
from interactd.sandbox.egress.policy.rules import Policy
from interactd.sandbox.egress.proxy import Proxy


class Way:
    """What one started sandbox has of the network. Without rules there is no proxy, and so no network at all."""

    def __init__(self, proxy: Proxy | None, env: Mapping[str, str]) -> None:
        self.egress = proxy
        self.env = env

    def log(self) -> list[Json]:
        """Return the requests since it was opened, oldest first."""
        return [] if self.egress is None else self.egress.log()

    async def aclose(self) -> None:
        if self.egress is not None:
            await self.egress.aclose()


class Ways:
    """Makes them. `credentials` is where secrets are; without it none can be referred to."""

    def __init__(self, credentials: SecretSource | None = None) -> None:
        self.credentials = credentials

    def check(self, network: Json | None, env: Mapping[str, Any]) -> None:
        """Raises: InvalidArgument: the rules or the variables are wrong."""
        Policy.from_environment(network, env, self.credentials)

    async def open(self, network: Json | None, env: Mapping[str, Any], folder: Path, name: str) -> Way:
        """Make one; `folder` is where the certificate of its authority is written, if it needs one."""
        policy = Policy.from_environment(network, env, self.credentials)
        if policy.off:
            return Way(None, policy.env)
        folder.mkdir(mode=0o700, exist_ok=True)
        return Way(await Proxy.open(policy, folder, name=name), policy.env)
