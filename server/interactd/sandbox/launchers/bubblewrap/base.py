"""What every sandbox sees of the host: a made-up /etc, and a Python that it can run.

The folder is made once and reused; its name is a digest of what went into it. It holds no secret: an /etc with one
user, no resolver, the public certificate bundle, the loader's cache and the distribution's alternatives.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from interactd.errors import SandboxUnavailable

SUPERVISOR = Path(__file__).parent.parent / "inside" / "supervisor.py"
USER, HOME, INSIDE_ID = "agent", "/home/agent", 1000
OLDEST_PYTHON = (3, 10)

_TEXTS = {
    "passwd": f"root:x:0:0:root:/root:/usr/sbin/nologin\n{USER}:x:{INSIDE_ID}:{INSIDE_ID}::{HOME}:/bin/bash\n"
    "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    "group": f"root:x:0:\n{USER}:x:{INSIDE_ID}:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
    "hostname": "sandbox\n",
    "resolv.conf": "",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "host.conf": "multi on\n",
    "shells": "/bin/sh\n/bin/bash\n",
    "profile": "export PATH\n",
    "machine-id": "",
    "gai.conf": "",
}
# Public parts of the host's /etc that programs below /usr point to.
_COPIES = (
    "alternatives",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "mime.types",
    "protocols",
    "services",
    "localtime",
    "fonts",
    "ssl/openssl.cnf",
    "ssl/certs/ca-certificates.crt",
    "ssl/cert.pem",
    "pki/tls/certs",
    "pki/tls/openssl.cnf",
    "pki/ca-trust/extracted/pem",
    "crypto-policies/back-ends",
    "ImageMagick-6",
    "magic",
    "python3",
    "perl",
)
_PROBE = "import sys,importlib.util as u;print(*sys.version_info[:2],int(u.find_spec('pip') is not None))"


@dataclass(frozen=True, slots=True)
class Python:
    """A Python for the sandbox. `prefix` must be shown inside at its own path; None when it is below /usr."""

    executable: str
    prefix: Path | None
    version: tuple[int, int]


def _ask(executable: str) -> tuple[tuple[int, int], bool] | None:
    try:
        done = subprocess.run(
            [executable, "-I", "-c", _PROBE], capture_output=True, text=True, timeout=20, env={}, check=False
        )
        major, minor, pip = map(int, done.stdout.split())
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return (major, minor), bool(pip)


def find_python(wanted: str = "auto") -> Python:
    """Choose the sandbox's Python. Blocking. `wanted` is auto, system, own, or a path below /usr.

    Auto takes /usr/bin/python3 when it is 3.10 or newer and has pip, else the Python that runs us.

    Raises:
        SandboxUnavailable: there is none.
    """
    system = "/usr/bin/python3" if wanted in ("auto", "system", "own") else wanted
    if wanted != "own" and os.path.realpath(system).startswith("/usr/"):
        found = _ask(system)
        if found and found[0] >= OLDEST_PYTHON and (found[1] or wanted != "auto"):
            return Python(system, None, found[0])
    if wanted in ("auto", "own"):
        prefix = Path(sys.base_prefix).resolve()
        executable = prefix / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
        if prefix == Path("/usr"):
            return Python(str(executable), None, sys.version_info[:2])
        # Never a folder that holds more than a Python: a home folder as prefix would show everything in it.
        private = {Path("/"), Path.home().resolve(), *Path.home().resolve().parents}
        if executable.exists() and prefix not in private:
            return Python(str(executable), prefix, sys.version_info[:2])
    raise SandboxUnavailable(
        "there is no Python for the sandbox", repair="Install the system's python3 (3.10 or newer) with its pip."
    )


def build(cache: Path, python: Python) -> Path:
    """Make the base folder below `cache`, or find it there; returns it. Blocking; about 20 ms when new.

    Raises:
        OSError: it cannot be written.
    """
    digest = hashlib.sha256(repr((sorted(_TEXTS.items()), _COPIES, python)).encode())
    digest.update(SUPERVISOR.read_bytes())
    for name in _COPIES:
        with contextlib.suppress(OSError):
            info = Path("/etc", name).stat()
            digest.update(f"{name}{info.st_mtime_ns}{info.st_size}".encode())
    folder = cache / f"base-{digest.hexdigest()[:16]}"
    if (folder / "etc").is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = cache / f".base-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        _fill(new / "etc", python)
        for path in [new, *new.rglob("*")]:
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() else 0o644)
        with contextlib.suppress(OSError):  # another daemon of this user was faster: the same content
            new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    for old in cache.glob("base-*"):
        if old != folder and old.stat().st_mtime < folder.stat().st_mtime - 86400:
            shutil.rmtree(old, ignore_errors=True)
    return folder


def _fill(etc: Path, python: Python) -> None:
    etc.mkdir(parents=True)
    for name, text in _TEXTS.items():
        (etc / name).write_text(text)
    (etc / "mtab").symlink_to("/proc/self/mounts")
    for name in _COPIES:
        source, target = Path("/etc") / name, etc / name
        with contextlib.suppress(OSError, shutil.Error):
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, symlinks=name == "alternatives", ignore_dangling_symlinks=True)
            elif source.is_file():
                shutil.copyfile(source, target)
    own = etc / "interactd"
    own.mkdir()
    shutil.copyfile(SUPERVISOR, own / "supervisor.py")
    # Compiled by the Python that will run it: reading source would be a fifth of a cold start.
    mode = "invalidation_mode=p.PycInvalidationMode.UNCHECKED_HASH"
    compiler = f"import sys,py_compile as p;p.compile(sys.argv[1],sys.argv[2],doraise=True,{mode})"
    subprocess.run(
        [python.executable, "-I", "-S", "-c", compiler, str(own / "supervisor.py"), str(own / "supervisor.pyc")],
        check=False,
        capture_output=True,
        timeout=30,
        env={},
    )


def supervisor_inside(base: Path) -> str:
    """Return the supervisor's path as the sandbox sees it."""
    compiled = base / "etc" / "interactd" / "supervisor.pyc"
    return f"/etc/interactd/{'supervisor.pyc' if compiled.exists() else 'supervisor.py'}"
