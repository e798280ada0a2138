"""A raw MCP host: it speaks JSON lines to a shim's pipes and hides nothing. And a home that must end up empty."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from interactd import paths as where
from interactd.paths import Paths

Json = dict[str, Any]
ECHO = Path(__file__).with_name("echo.py")
PATIENCE_S = 30.0


def eventually(condition: Callable[[], Any], *, within_s: float = PATIENCE_S) -> Any:
    """Return the condition's first true value; fail when there is none in time."""
    end = time.monotonic() + within_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.01)


class Home:
    """An INTERACTD_HOME of a test's own."""

    def __init__(self, root: Path, **env: str) -> None:
        self.root = root
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ}
        self.env = {**kept, "HOME": str(root.parent), "INTERACTD_HOME": str(root), **env}
        self.paths: Paths = where.find(self.env)
        self._hosts: list[Host] = []
        self._processes: list[subprocess.Popen[bytes]] = []

    def host(self, *options: str, real: bool = False, **env: str) -> Host:
        """Start a shim as a host would. `options` go before `mcp` (see echo.py); `real` is `interactd mcp`."""
        command = ["-m", "interactd"] if real else [str(ECHO), *options]
        return self.host_of([sys.executable, *command, "mcp"], **env)

    def host_of(self, command: list[str], **env: str) -> Host:
        """Start any command as a host would."""
        self.root.parent.mkdir(parents=True, exist_ok=True)
        host = Host(command, {**self.env, **env}, self.root.parent)
        self._hosts.append(host)
        return host

    def daemon(self, *options: str, **env: str) -> subprocess.Popen[bytes]:
        """Start an echo daemon in the foreground, as our child."""
        command = [sys.executable, "-P", str(ECHO), *options, "daemon", "--foreground"]
        process = subprocess.Popen(
            command, env={**self.env, **env}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._processes.append(process)
        return process

    def record(self) -> Json:
        """Return daemon.json, empty when there is none."""
        with contextlib.suppress(OSError, ValueError):
            return json.loads(self.paths.record.read_text())
        return {}

    def ready(self) -> int:
        """Wait for a daemon that is ready and return its pid."""
        return eventually(lambda: self.record().get("pid") if "ready_at" in self.record() else None)

    def processes(self) -> list[int]:
        """Return the pids of everything that runs with this home, from /proc."""
        mark = f"INTERACTD_HOME={self.root}".encode()
        found: list[int] = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    if mark in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
        return found

    def daemons(self) -> list[int]:
        """Return the pids of the daemons among them."""
        return [pid for pid in self.processes() if b"daemon" in _arguments(pid)]

    def close(self) -> None:
        """End everything; fails when something would have stayed."""
        for host in self._hosts:
            host.close()
        for process in self._processes:
            process.kill()
            process.communicate()
        told: dict[int, float] = {}

        def all_gone() -> bool:
            # A shim may have been starting one more when it was killed. A second signal cuts a long drain short.
            for pid in self.daemons():
                if time.monotonic() - told.get(pid, 0.0) < 4.0:
                    continue
                told[pid] = time.monotonic()
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
                    os.kill(pid, signal.SIGTERM)
            return not self.processes()

        try:
            eventually(all_gone, within_s=15)
        finally:
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


class Host:
    """The host's side of one shim."""

    def __init__(self, command: list[str], env: dict[str, str], folder: Path) -> None:
        self.process = subprocess.Popen(
            command,
            env=env,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        self.pid = self.process.pid
        self.messages: list[Json] = []
        self.garbage: list[bytes] = []
        self.stderr = b""
        self._arrived = threading.Condition()
        self._next = 0
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._read, self._read_errors)]
        self.reading = threading.Event()
        self.reading.set()
        for thread in self._threads:
            thread.start()

    def send(self, message: Json | list[Json] | bytes) -> None:
        """Write one message as a line, or bytes as they are."""
        data = message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n"
        assert self.process.stdin
        view = memoryview(data)
        while view:
            view = view[self.process.stdin.write(view) :]

    def ask(self, method: str, params: Json | None = None, *, id_: int | str | None = None) -> int | str:
        """Send a request and return its id."""
        self._next += 1
        key = self._next if id_ is None else id_
        self.send({"jsonrpc": "2.0", "id": key, "method": method, "params": params or {}})
        return key

    def tell(self, method: str, params: Json | None = None) -> None:
        """Send a notification."""
        self.send({"jsonrpc": "2.0", "method": method, "params": params or {}})

    def answer(self, key: int | str, *, within_s: float = PATIENCE_S) -> Json:
        """Wait for the answer to a request and return it whole."""
        return self.wait(lambda m: m.get("id") == key and "method" not in m, within_s=within_s)

    def wait(self, fits: Callable[[Json], bool], *, within_s: float = PATIENCE_S) -> Json:
        """Wait for a message that fits."""
        with self._arrived:
            found = self._arrived.wait_for(lambda: [m for m in self.messages if fits(m)], within_s)
        assert found, f"no such message in {within_s} s; stderr: {self.stderr.decode(errors='replace')[-2000:]}"
        return found[0]

    def call(self, tool: str, **arguments: Any) -> Any:
        """Call a tool and return the result; fails on an error."""
        answer = self.answer(self.ask("tools/call", {"name": tool, "arguments": arguments}))
        assert "result" in answer, answer
        return answer["result"]

    def initialize(self, version: str = "2025-11-25") -> Json:
        """Do what legacy clients do first."""
        params = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
        answer = self.answer(self.ask("initialize", params))
        self.tell("notifications/initialized")
        return answer

    def hang_up(self) -> int:
        """Close stdin and return the exit code."""
        assert self.process.stdin
        self.process.stdin.close()
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        """Kill it if it still runs."""
        self.reading.set()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for thread in self._threads:
            thread.join(5)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream
            with contextlib.suppress(OSError):
                stream.close()

    def _read(self) -> None:
        held = b""
        assert self.process.stdout
        while True:
            self.reading.wait()
            chunk = self.process.stdout.read(65536)
            if not chunk:
                return
            *lines, held = (held + chunk).split(b"\n") if b"\n" in chunk else (held + chunk,)
            with self._arrived:
                for line in lines:
                    try:
                        found: Any = json.loads(line)
                    except ValueError:
                        self.garbage.append(line)
                        continue
                    several: list[Any] = found if isinstance(found, list) else [found]  # pyright: ignore[reportUnknownVariableType]
                    self.messages += several
                self._arrived.notify_all()

    def _read_errors(self) -> None:
        assert self.process.stderr
        while chunk := self.process.stderr.read(65536):
            self.stderr += chunk


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home whose processes must all be gone at the end of the test."""
    made = Home(tmp_path / "home")
    yield made
    made.close()


def _arguments(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
