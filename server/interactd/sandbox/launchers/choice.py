"""Which launcher to use: the first good enough one, never the one without isolation unless it was named."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence

from interactd.errors import InvalidArgument, SandboxUnavailable
from interactd.sandbox.launchers.bubblewrap.launcher import Bubblewrap
from interactd.sandbox.launchers.install import sentence
from interactd.sandbox.port import LAUNCHERS, Capability, Launcher, Level

_AGAIN_S = 30.0


class Launchers:
    """All launchers of this machine, in order of preference. Probes are remembered; failures for 30 s."""

    def __init__(self, launchers: Sequence[Launcher]) -> None:
        self._launchers = list(launchers)
        self._known: dict[str, tuple[float, Capability]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    def __iter__(self) -> Iterator[Launcher]:
        return iter(self._launchers)

    def __len__(self) -> int:
        return len(self._launchers)

    def __getitem__(self, index: int) -> Launcher:
        return self._launchers[index]

    async def capability(self, launcher: Launcher, *, fresh: bool = False) -> Capability:
        """Return what a launcher can do here, from memory unless `fresh`."""
        async with self._locks.setdefault(launcher.name, asyncio.Lock()):
            at, known = self._known.get(launcher.name, (0.0, None))
            if known is None or fresh or (not known.usable and time.monotonic() - at > _AGAIN_S):
                known = await launcher.probe()
                self._known[launcher.name] = (time.monotonic(), known)
            return known

    async def capabilities(self, *, fresh: bool = False) -> list[Capability]:
        """Return what each can do here, in order of preference."""
        return [await self.capability(launcher, fresh=fresh) for launcher in self._launchers]

    async def choose(self, wanted: str | None = None, requires: Mapping[str, Level] | None = None) -> Launcher:
        """Return the launcher named, or the first usable one that has at least `requires`.

        Raises:
            InvalidArgument: no launcher has that name.
            SandboxUnavailable: none is usable or strong enough; the repair is the one command that helps.
        """
        if wanted is not None and wanted not in {launcher.name for launcher in self._launchers}:
            raise InvalidArgument(
                f"there is no launcher {wanted!r}", field="launcher", repair=f"Use one of {', '.join(LAUNCHERS)}."
            )
        refused: list[str] = []
        fix: str | None = None
        for launcher in self._launchers:
            if launcher.name != wanted and (wanted is not None or launcher.name == "process"):
                continue
            found = await self.capability(launcher)
            weak = found.isolation.below(requires or {}) if found.isolation else []
            if found.usable and not weak:
                return launcher
            if not found.elsewhere or wanted is not None:
                refused.append(f"{launcher.name}: {'; '.join(weak) if found.usable else found.why}")
            fix = fix or (_stronger(weak) if found.usable else found.fix)
        raise SandboxUnavailable(
            "no sandbox here is good enough. " + ". ".join(refused), repair=fix or sentence(), refused=refused
        )

    def attend(self) -> None:
        """Have the helper there that tidies up when this process is killed."""
        for launcher in self._launchers:
            if isinstance(launcher, Bubblewrap):
                launcher.attend()

    async def reap(self) -> int:
        """Remove what a killed daemon left behind, of every launcher; returns how many."""
        return sum([await launcher.reap() for launcher in self._launchers])

    async def aclose(self) -> None:
        """End every sandbox of every launcher."""
        for launcher in self._launchers:
            await launcher.aclose()


def _stronger(weak: list[str]) -> str:
    if any(text.startswith(("memory", "cpu")) for text in weak):
        return (
            "Memory and cpu need a control group: start the daemon with `systemd-run --user --scope -p Delegate=yes "
            "interactd serve`, or as root; or lower what the agent's manifest requires."
        )
    if any(text.startswith("disk") for text in weak):
        return "No launcher here enforces a workspace's size: let the agent's manifest require disk: best_effort."
    return sentence()
