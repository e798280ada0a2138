"""The command line of bubblewrap: an allow-list root, nothing shared, nothing writable that has no limit."""

from __future__ import annotations

import os
import re
import resource
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from interactd.errors import InvalidArgument
from interactd.sandbox.folder import beneath
from interactd.sandbox.launchers.bubblewrap.base import HOME, INSIDE_ID, Python
from interactd.sandbox.launchers.settings import CA_INSIDE
from interactd.sandbox.port import Limits, Spec

STAGE = "/tmp"
_OWNED = ("/", "/usr", "/etc", "/proc", "/dev", "/sys", "/run", "/bin", "/sbin", "/lib", "/lib64", "/tmp", "/root")
_TOP = ("bin", "sbin", "lib", "lib64", "lib32", "libx32")
# Descriptors of the started program, see `boot`.
CONTROL, FILTER, INFO = 3, 4, 5


@dataclass(frozen=True, slots=True)
class Bwrap:
    """An installed bubblewrap and what it understands."""

    path: str
    version: str
    flags: frozenset[str]


def inspect(path: str) -> Bwrap | None:
    """Ask an executable what it is. Blocking."""
    try:
        text = subprocess.run([path, "--help"], capture_output=True, text=True, timeout=10, env={}, check=False)
        version = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, env={}, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return Bwrap(path, version.stdout.strip(), frozenset(re.findall(r"--[a-z0-9-]+", text.stdout + text.stderr)))


class Stage:
    """Names for paths that the sandbox's uid could not walk to. For root only; otherwise paths stay as they are."""

    def __init__(self, on: bool) -> None:
        self.on = on
        self.sources: list[list[str]] = []

    def __call__(self, path: Path) -> str:
        if not self.on:
            return str(path)
        name = f"s{len(self.sources)}"
        self.sources.append([str(path), name])
        return f"{STAGE}/{name}"


def check_mounts(spec: Spec) -> None:
    """Refuse a mount that would cover the sandbox's own parts.

    Raises:
        InvalidArgument: its target is relative, holds `..`, or belongs to the system; or its source is not there.
    """
    for mount in spec.mounts:
        target = PurePosixPath(mount.target)
        inside = any(str(target).startswith(top + "/") for top in _OWNED if top not in ("/", "/root"))
        if not target.is_absolute() or ".." in target.parts or str(target) in _OWNED or inside:
            raise InvalidArgument(
                f"cannot mount at {mount.target!r}", field="mounts", repair="Use a path below /workspace or /mnt."
            )
        if str(target) in ("/workspace", HOME):
            raise InvalidArgument(f"{mount.target} is the workspace itself", field="mounts")
        if not mount.source.exists():
            raise InvalidArgument(f"{mount.source} does not exist", field="mounts")


def check_targets(spec: Spec) -> None:
    """Refuse a mount whose way leads through a link that code in the sandbox made. Blocking.

    bubblewrap follows such a link while the whole host is still there: it would make folders wherever we may write,
    and mount somewhere else. Nothing runs in the workspace now that could put a link there after this.

    Raises:
        InvalidArgument: there is a link, or something else that is no folder.
    """
    for mount in spec.mounts:
        for base, folder in (("/workspace", spec.workspace), (HOME, spec.home)):
            if not mount.target.startswith(base + "/"):
                continue
            root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                _check_way(root, os.fsencode(mount.target[len(base) + 1 :]))
            except OSError as error:
                raise InvalidArgument(
                    f"cannot mount at {mount.target!r}: on the way is a link, or what is no folder ({error.strerror})",
                    field="mounts",
                    repair="Delete or rename what stands there in the workspace.",
                ) from None
            finally:
                os.close(root)


def _check_way(root: int, way: bytes) -> None:
    names = [name for name in way.split(b"/") if name]
    for depth in range(1, len(names) + 1):
        try:
            os.close(beneath.open_folder(root, b"/".join(names[:depth])))
        except FileNotFoundError:
            return  # From here on it is made.


def arguments(
    bwrap: Bwrap,
    spec: Spec,
    base: Path,
    python: Python,
    supervisor: str,
    *,
    stage: Callable[[Path], str],
    has_filter: bool,
    root: Path = Path("/"),
) -> list[str]:
    """Return the argv. Pure but for looking at which of /bin, /lib ... are links on this host."""
    limits = spec.limits
    shm, tmp = (str((max(1, min(limits.memory_mb // share, 2048))) << 20) for share in (4, 2))
    args = [bwrap.path, "--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    args += ["--unshare-cgroup-try", "--uid", str(INSIDE_ID), "--gid", str(INSIDE_ID), "--cap-drop", "ALL"]
    # Older ones lack it; the filter refuses nested user namespaces too.
    args += ["--disable-userns"] if "--disable-userns" in bwrap.flags else []
    args += ["--hostname", "sandbox", "--new-session", "--die-with-parent", "--as-pid-1", "--clearenv"]
    args += ["--setenv", "PATH", "/usr/bin:/bin", "--setenv", "LANG", "C.UTF-8"]
    args += ["--ro-bind", "/usr", "/usr"]
    for name in _TOP:
        top = root / name
        if top.is_symlink():
            args += ["--symlink", str(top.readlink()).removeprefix("/"), f"/{name}"]
        elif top.is_dir():
            args += ["--ro-bind", f"/{name}", f"/{name}"]
    etc = stage(base / "etc")
    args += ["--ro-bind", etc, "/etc", "--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys"]
    for cover in ("/proc/keys", "/proc/cmdline"):
        args += ["--ro-bind", f"{etc}/machine-id", cover]  # an empty file
    args += ["--dev", "/dev", *_tmpfs(bwrap, shm, "1777", "/dev/shm"), "--remount-ro", "/dev"]
    args += [*_tmpfs(bwrap, tmp, "1777", "/tmp"), "--dir", "/run"]
    if python.prefix is not None:
        args += ["--ro-bind", stage(python.prefix), str(python.prefix)]
    if spec.egress is not None and spec.egress.ca_file is not None:
        args += ["--ro-bind", stage(spec.egress.ca_file), CA_INSIDE]
    args += ["--bind", stage(spec.home), HOME, "--bind", stage(spec.workspace), "/workspace"]
    for mount in spec.mounts:
        args += ["--ro-bind" if mount.read_only else "--bind", stage(mount.source), mount.target]
    args += ["--chdir", "/workspace", "--remount-ro", "/"]
    args += ["--seccomp", str(FILTER)] if has_filter else []
    args += ["--info-fd", str(INFO), "--", python.executable, "-I", "-S", supervisor, str(CONTROL)]
    return [*args, str(limits.pids)]


def _tmpfs(bwrap: Bwrap, size: str, mode: str, path: str) -> list[str]:
    sized = ["--size", size] if "--size" in bwrap.flags else []
    return [*sized, *(["--perms", mode] if "--perms" in bwrap.flags else []), "--tmpfs", path]


def rlimits(limits: Limits, *, memory_group: bool) -> list[tuple[int, int, int]]:
    """Return the resource limits that every process in the sandbox has, each as (number, soft, hard)."""
    cpu = max(1, int(limits.cpu_s))
    found = [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, limits.file_mb << 20),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_MEMLOCK, 65536),
        (resource.RLIMIT_CPU, cpu),
    ]
    # Not in every Python's resource module: message queues, pending signals, nice, realtime (Linux numbers).
    found += [(12, 819200), (11, 4096), (13, 0), (14, 0)]
    if not memory_group:
        # Heap and private maps of one process; never RLIMIT_AS, which kills what only reserves address space.
        found.append((resource.RLIMIT_DATA, limits.memory_mb << 20))
    # The soft limit's signal says what happened; the hard one a second later ends who ignores it.
    return [(number, value, value + (number == resource.RLIMIT_CPU)) for number, value in found]
