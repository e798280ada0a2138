"""What environments need of the network: rules that are checked early, and a way out for each started sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from interactd.nouns import Json
from interactd.sandbox.port import Egress


class Way(Protocol):
    """What one started sandbox has of the network and of secrets."""

    @property
    def egress(self) -> Egress | None:
        """The proxy to start the sandbox with; None is no network at all."""
        ...

    @property
    def env(self) -> Mapping[str, str]:
        """The environment's variables, with placeholders where credentials are meant."""
        ...

    def log(self) -> list[Json]:
        """Requests since it was opened, oldest first."""
        ...

    async def aclose(self) -> None: ...


class Ways(Protocol):
    """Makes them; `interactd.sandbox.egress.ways.NetworkWays` does."""

    def check(self, network: Json | str | None, env: Mapping[str, Any]) -> None:
        """Raises: InvalidArgument: the rules or the variables are wrong."""
        ...

    async def open(self, network: Json | str | None, env: Mapping[str, Any], folder: Path) -> Way:
        """Make one; a certificate for the sandbox, if it needs one, is written into `folder`."""
        ...
