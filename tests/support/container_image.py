"""A container image made of this machine's own files: no registry is asked. For root, with podman."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

NAME = "localhost/interactd-test:1"
_PROGRAMS = (
    "bash",
    "sh",
    "env",
    "true",
    "cat",
    "ls",
    "echo",
    "sleep",
    "id",
    "head",
    "dd",
    "rm",
    "mkdir",
    "touch",
    "stat",
)


def present(podman: str) -> bool:
    """Whether the image is there already. Blocking."""
    return subprocess.run([podman, "image", "exists", NAME], check=False, capture_output=True).returncode == 0


def there(podman: str) -> bool:
    """Whether the image is there, made now if it was not. Blocking, some seconds the first time."""
    if present(podman):
        return True
    python = Path("/usr/bin/python3").resolve()
    if not python.name.startswith("python3."):
        return False
    with tempfile.TemporaryDirectory(prefix="interactd-image-") as folder:
        root = Path(folder) / "root"
        _fill(root, python)
        archive = Path(folder) / "image.tar"
        subprocess.run(["tar", "-C", str(root), "-cf", str(archive), "."], check=True)
        done = subprocess.run([podman, "import", str(archive), NAME], check=False, capture_output=True, timeout=120)
    return done.returncode == 0


def _fill(root: Path, python: Path) -> None:
    for name in ("usr/bin", "usr/lib", "etc", "tmp", "run", "proc", "dev", "sys", "workspace", "home/agent", "var"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to("usr/bin" if "bin" in name else f"usr/{name}")
    programs = [python, *(Path(found) for name in _PROGRAMS if (found := shutil.which(name, path="/usr/bin:/bin")))]
    for program in programs:
        shutil.copy2(program.resolve(), root / "usr/bin" / program.name)
    (root / "usr/bin/python3").symlink_to(python.name)
    library = Path("/usr/lib") / python.name
    shutil.copytree(library, root / "usr/lib" / python.name, symlinks=True, ignore=shutil.ignore_patterns("test"))
    for needed in _libraries([*programs, *library.glob("lib-dynload/*.so")]):
        target = (
            root / needed.relative_to("/")
            if str(needed).startswith("/usr/")
            else root / "usr" / needed.relative_to("/")
        )
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            shutil.copy2(needed.resolve(), target)
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")


def _libraries(files: list[Path]) -> set[Path]:
    found: set[Path] = set()
    for file in files:
        said = subprocess.run(["ldd", os.fspath(file)], check=False, capture_output=True, text=True).stdout
        found |= {Path(word) for word in said.split() if word.startswith("/")}
    return found
