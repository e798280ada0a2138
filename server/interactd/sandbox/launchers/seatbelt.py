"""macOS: the same supervisor under `sandbox-exec` with a profile that denies by default.

The profile's text is tested; it has not been run on a Mac by this project, and `probe` runs it before it is used.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from interactd.errors import InteractdError, SandboxFailed
from interactd.sandbox.launchers.process import Process
from interactd.sandbox.port import Capability, Exit, Isolation, Limits, Spec

_TOOL = "/usr/bin/sandbox-exec"
_SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/System",
    "/Library/Apple",
    "/Library/Developer",
    "/opt/homebrew",
    "/private/etc/ssl",
)
_FILES = ("/private/etc/hosts", "/private/etc/passwd", "/private/etc/localtime", "/private/var/db/timezone", "/dev")
_MACH = (
    "com.apple.system.opendirectoryd.libinfo",
    "com.apple.system.logger",
    "com.apple.system.notification_center",
    "com.apple.trustd.agent",
)


def quote(path: str) -> str:
    """Return a path as a string of the profile language."""
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'


def profile(spec: Spec, *, python: Path, own: Path, proxy_port: int | None = None) -> str:
    """Return the profile for one sandbox: the system to read, its own folders to write, the proxy, nothing else."""
    home, workspace = str(spec.home.resolve()), str(spec.workspace.resolve())
    reads = [*_SYSTEM, *_FILES, str(python), str(own), workspace, home, "/private/tmp/interactd-none"]
    reads += [str(mount.source.resolve()) for mount in spec.mounts]
    writes = [workspace, home, *(str(mount.source.resolve()) for mount in spec.mounts if not mount.read_only)]
    if spec.egress is not None and spec.egress.ca_file is not None:
        reads.append(str(spec.egress.ca_file.resolve()))
    lines = [
        "(version 1)",
        "(deny default)",
        "(allow process-exec process-fork)",
        "(allow signal (target same-sandbox))",
        "(allow process-info* (target same-sandbox))",
        "(allow sysctl-read)",
        "(allow file-read-metadata)",
        "(allow mach-lookup " + " ".join(f"(global-name {quote(name)})" for name in _MACH) + ")",
        "(allow file-read* (literal "
        + quote("/")
        + ") "
        + " ".join(f"(subpath {quote(path)})" for path in reads)
        + ")",
        "(allow file-write* " + " ".join(f"(subpath {quote(path)})" for path in writes) + ")",
        '(allow file-write-data (literal "/dev/null") (literal "/dev/zero") (literal "/dev/tty"))',
        '(allow file-ioctl (literal "/dev/null"))',
        "(allow ipc-posix-sem)",
        "(deny appleevent-send)",
        "(deny lsopen)",
    ]
    if proxy_port is not None:
        lines.append(f'(allow network-outbound (remote ip "localhost:{proxy_port}"))')
    return "\n".join(lines) + "\n"


class Seatbelt(Process):
    """See `Launcher`. Files and network are confined; there are no namespaces, so limits are watched, not enforced."""

    name = "seatbelt"

    def isolation(self) -> Isolation:
        """Return what the profile gives, were it to work as Apple documents it."""
        return Isolation(
            self.name,
            filesystem="enforced",
            network="enforced",
            pids="best_effort",
            memory="best_effort",
            cpu="best_effort",
            disk="best_effort",
            syscalls="absent",
            notes=("experimental: this profile was never run on a Mac by the people who wrote it",),
        )

    async def probe(self) -> Capability:
        """See `Launcher.probe`: runs a command, and one that must be refused."""
        if sys.platform != "darwin":
            return Capability(self.name, False, None, "seatbelt exists on macOS only", elsewhere=True)
        if not Path(_TOOL).exists():
            return Capability(self.name, False, None, f"{_TOOL} is not on this Mac")
        folder = Path(tempfile.mkdtemp(prefix="interactd-probe-"))
        try:
            spec = Spec("probe", folder / "ws", folder / "home", limits=Limits(wall_s=20))
            for path in (spec.workspace, spec.home):
                path.mkdir()
            if await self._runs(spec, "echo x > here && cat here") != 0:
                raise SandboxFailed("a command in it did not work")
            if await self._runs(spec, f"ls {quote(str(Path.home()))}") == 0:
                raise SandboxFailed("it let a command list the home folder")
            return Capability(self.name, True, self.isolation(), "the profile holds", None)
        except InteractdError as error:
            return Capability(self.name, False, None, error.message, "Install docker or podman for Mac instead.")
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def wrap(self, spec: Spec, argv: list[str], proxy_port: int | None) -> list[str]:
        """See `Process.wrap`."""
        own = Path(__file__).parent / "inside"
        text = profile(spec, python=Path(sys.base_prefix), own=own, proxy_port=proxy_port)
        return [_TOOL, "-p", text, *argv]

    async def _runs(self, spec: Spec, line: str) -> int | None:
        sandbox = await self.start(spec)
        try:
            code: int | None = None
            async for event in sandbox.exec(["/bin/sh", "-c", line]):
                code = event.code if isinstance(event, Exit) else code
            return code
        finally:
            await sandbox.aclose()
