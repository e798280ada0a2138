"""A driver per user, and the check that nothing is left of what it ran."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import interactd
from interactd.sandbox.folder import trees

SPARE_UID = 54321
SECRET = "sk-decoy-0123456789"
ROOT = os.getuid() == 0
_DRIVER = Path(__file__).parent / "driver.py"


def identities() -> list[str]:
    """Root tests both; anybody else tests what they are."""
    return ["root", "user"] if ROOT else ["user"]


def python_for(uid: int) -> str | None:
    """A Python new enough that this uid may run."""
    for path in (sys.executable, "/usr/bin/python3"):
        try:
            done = subprocess.run(
                [path, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"],
                user=uid if ROOT else None,
                capture_output=True,
                timeout=20,
                check=False,
                cwd="/",
            )
        except OSError:
            continue
        if done.returncode == 0:
            return path
    return None


class Rig:
    """A driver, and what it may reach on the host."""

    def __init__(self, folder: Path, identity: str) -> None:
        self.identity = identity
        self.uid = 0 if identity == "root" else SPARE_UID if ROOT else os.getuid()
        python = python_for(self.uid)
        if python is None:
            pytest.skip("no Python of 3.11 or newer that an ordinary user may run")
        self.folder = folder
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
        sources = folder / "sources"
        for name in ("__init__.py", "errors.py", "paths.py", "nouns.py", "ids.py", "_version.py", "sandbox"):
            origin = Path(interactd.__path__[0]) / name
            copy = shutil.copytree if origin.is_dir() else shutil.copyfile
            (sources / "interactd").mkdir(parents=True, exist_ok=True)
            copy(origin, sources / "interactd" / name)
        self.home = folder / "home"
        self.home.mkdir()
        if ROOT:
            os.chown(self.home, self.uid, self.uid)
        self.secret_file = folder / "decoy_key"
        self.secret_file.write_text(SECRET)
        self.process = subprocess.Popen(
            [python, "-B", str(_copy(_DRIVER, folder)), str(sources), str(self.home), str(self.uid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PATH": "/usr/bin:/bin:/usr/sbin", "OPENAI_API_KEY": SECRET, "TMPDIR": str(self.home)},
            cwd="/",
        )
        self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the driver died"
        return json.loads(line)

    def ask(self, job: dict[str, Any]) -> dict[str, Any]:
        """Have one job done; see `Driver.run`."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return self._read()

    def python(self, code: str, **more: Any) -> dict[str, Any]:
        """Run Python code in a new sandbox (or the one kept under `keep`)."""
        return self.ask({"do": "exec", "argv": ["python3", "-c", code], **more})

    def shell(self, line: str, **more: Any) -> dict[str, Any]:
        return self.ask({"do": "exec", "argv": ["bash", "-c", line], **more})

    def left(self) -> dict[str, Any]:
        """Everything that a sandbox could leave behind, countable before and after."""
        return {
            "processes": sorted(below(self.process.pid)),
            "mounts": [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(self.folder) in line],
            "groups": sorted(group for group in _groups() if f"/interactd-{self.process.pid}-" in group),
            "loops": [
                text
                for path in Path("/sys/block").glob("loop*/loop/backing_file")
                if str(self.folder) in (text := _text(path))
            ],
            "descriptors": len(list(Path(f"/proc/{self.process.pid}/fd").iterdir())),
            "folders": sorted(path.name for path in self.home.glob("interactd-probe-*")),
        }

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


def remove(folder: Path) -> None:
    """Remove a folder that hostile code may have made deeper than anything else can remove."""
    above = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        trees.remove(above, os.fsencode(folder.name))
    finally:
        os.close(above)


def _copy(path: Path, folder: Path) -> Path:
    return Path(shutil.copyfile(path, folder / path.name))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _groups() -> list[str]:
    # Not by glob: that fails when another test's group goes while it looks.
    return [
        f"{above}/{name}"
        for above, names, _files in os.walk("/sys/fs/cgroup")
        for name in names
        if name.startswith("interactd-")
    ]


def below(pid: int) -> list[int]:
    """Every process below one."""
    parents: dict[int, list[int]] = {}
    for name in [path.name for path in Path("/proc").iterdir()]:
        if name.isdigit() and (stat := _text(Path(f"/proc/{name}/stat"))):
            words = stat.rpartition(")")[2].split()
            if words[0] != "Z":
                parents.setdefault(int(words[1]), []).append(int(name))
    found, left = list[int](), [pid]
    while left:
        found += (children := parents.get(left.pop(), []))
        left += children
    return found


def wait_for(look: Callable[[], Any], good: Callable[[Any], bool], patience_s: float = 3.0) -> Any:
    """Look until it is good, bounded; returns what was seen last."""
    deadline = time.monotonic() + patience_s
    while not good(seen := look()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return seen


def rigs(identity: str) -> Iterator[Rig]:
    """A driver as that user, in a folder that an ordinary user can walk to (pytest's own are not)."""
    folder = Path(tempfile.mkdtemp(prefix="interactd-test-"))
    try:
        yield from _rig(folder, identity)
    finally:
        remove(folder)


def _rig(folder: Path, identity: str) -> Iterator[Rig]:
    rig = Rig(folder, identity)
    try:
        if not rig.ask({"do": "probe"})["usable"]:
            pytest.skip("bubblewrap cannot be used on this machine")
        rig.shell("true")
        yield rig
    finally:
        rig.close()
