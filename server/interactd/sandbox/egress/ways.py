"""What environments ask of the network (`environments/ways.py`), made of policies, proxies and the credentials."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interactd.nouns import Json
from interactd.sandbox.credentials.kinds import SecretSource
from interactd.sandbox.egress.dial import Resolver, system_resolver
from interactd.sandbox.egress.limits import EgressLimits
from interactd.sandbox.egress.policy.rules import Policy
from interactd.sandbox.egress.proxy import Proxy


class NetworkWay:
    """One started sandbox's policy, and its proxy when anything may be reached."""

    def __init__(self, policy: Policy, proxy: Proxy | None) -> None:
        self.policy = policy
        self._proxy = proxy

    @property
    def egress(self) -> Proxy | None:
        return self._proxy

    @property
    def env(self) -> Mapping[str, str]:
        """The environment's variables: plain text, and placeholders that are new with each way."""
        return self.policy.env

    def log(self) -> list[Json]:
        return [] if self._proxy is None else self._proxy.log()

    async def aclose(self) -> None:
        if self._proxy is not None:
            await self._proxy.aclose()


class NetworkWays:
    """Opens ways by the rules of an environment and the credentials of this user.

    Args:
        resolver, upstream, limits: as for `Proxy.open`.
    """

    def __init__(
        self,
        credentials: SecretSource | None,
        *,
        resolver: Resolver = system_resolver,
        upstream: ssl.SSLContext | None = None,
        limits: EgressLimits | None = None,
    ) -> None:
        self._credentials = credentials
        self._resolver = resolver
        self._upstream = upstream
        self._limits = limits

    def check(self, network: Json | str | None, env: Mapping[str, Any]) -> None:
        """Raises: InvalidArgument: the rules or the variables are wrong, or name a credential that is not there."""
        Policy.from_environment(network, env, self._credentials)

    async def open(self, network: Json | str | None, env: Mapping[str, Any], folder: Path) -> NetworkWay:
        """Make a way; its proxy serves once a launcher gives it a listener.

        Raises:
            InvalidArgument: as `check`.
            NotFound, StorageError, TimeoutError: a credential cannot be read.
            OSError: the certificate bundle cannot be written into `folder`.
        """
        policy = await asyncio.to_thread(Policy.from_environment, network, env, self._credentials)
        if policy.off:
            return NetworkWay(policy, None)
        proxy = await Proxy.open(
            policy, folder, name=folder.name, limits=self._limits, resolver=self._resolver, upstream=self._upstream
        )
        return NetworkWay(policy, proxy)
