"""A real daemon with a small MCP application, for tests of the shim and of the daemon's life.

    python echo.py [--version X] [--idle S] [--fail] [--asyncio] mcp|daemon ...

Everything around the application is the product's own code.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

Json = dict[str, Any]


class EchoFaces:
    """Answers what the tests ask, one JSON object a line, requests side by side."""

    def __init__(self, application: EchoApplication) -> None:
        self._application = application

    async def mcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hello: Json) -> None:
        peer = EchoPeer(self._application, writer, hello)
        held = b""
        async with asyncio.TaskGroup() as tasks:
            while chunk := await reader.read(65536):
                *lines, held = (held + chunk).split(b"\n")
                for line in lines:
                    with contextlib.suppress(ValueError):
                        tasks.create_task(peer.take(json.loads(line)))

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hello: Json) -> None:
        while line := await reader.readline():
            request = json.loads(line)
            result: Json = {"busy": self._application.busy, "queued": 0, "unread": 3, "auto": "embedded/x"}
            hooks = self._application.hooks
            if request["method"] == "stop":
                hooks.request_stop(**request["params"])
            else:
                result |= hooks.info()
            writer.write(json.dumps({"id": request["id"], "result": result}).encode() + b"\n")
            await writer.drain()


class EchoPeer:
    """One connection."""

    def __init__(self, application: EchoApplication, writer: asyncio.StreamWriter, hello: Json) -> None:
        self._application = application
        self._writer = writer
        self._hello = hello
        self._seen: list[str] = []
        self._asked: dict[Any, asyncio.Future[Any]] = {}

    async def take(self, message: Any) -> None:
        if isinstance(message, list):
            for each in message:  # pyright: ignore[reportUnknownVariableType]
                await self.take(each)
            return
        if "method" not in message:
            future = self._asked.pop(message.get("id"), None)
            if future is not None:
                future.set_result(message.get("result"))
            else:
                self._seen.append(f"stray answer {message.get('id')}")
            return
        method, params = str(message["method"]), _fields(message, "params")
        self._seen.append(method)
        if method == "initialize":
            self._hello["client"] = str(_fields(params, "clientInfo").get("name", ""))
        if "id" in message:
            result = await self._result(method, params)
            await self._send({"jsonrpc": "2.0", "id": message["id"], "result": result})

    async def _result(self, method: str, params: Json) -> Any:
        if method == "initialize":
            return {"protocolVersion": params.get("protocolVersion"), "serverInfo": {"name": "echo"}}
        if method != "tools/call":
            return {}
        given = _fields(params, "arguments")
        match str(params["name"]):
            case "pid":
                return os.getpid()
            case "hello":
                return self._hello
            case "seen":
                return self._seen
            case "environ":
                return dict(os.environ) | {"cwd": str(Path.cwd()), "umask": f"{_umask():o}"}
            case "sleep":
                await self._application.work(given["s"])
                return "slept"
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "die_once":
                # Leaves a mark first, so that the next daemon answers.
                mark = Path(given["mark"])
                if not mark.exists():
                    mark.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                return "alive"
            case "big":
                return base64.b64encode(os.urandom(given["size"] // 4 * 3)).decode()
            case "print":
                print("this is not protocol", flush=True)
                os.write(1, b"nor is this\n")
                return "printed"
            case "ask":
                self._asked[given["id"]] = future = asyncio.get_running_loop().create_future()
                await self._send({"jsonrpc": "2.0", "id": given["id"], "method": "roots/list"})
                return await future
            case _:
                return given

    async def _send(self, message: Json) -> None:
        self._writer.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")
        await self._writer.drain()


class EchoApplication:
    """Is busy while a `sleep` runs."""

    def __init__(self) -> None:
        self.faces = EchoFaces(self)
        self.busy = 0
        self.hooks: Any = None
        self._idle = asyncio.Condition()

    def attach(self, hooks: Any) -> None:
        self.hooks = hooks

    async def start(self) -> None:
        if "--fail" in sys.argv:
            raise ValueError("this application cannot start")

    async def work(self, seconds: float) -> None:
        self.busy += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            async with self._idle:
                self.busy -= 1
                self._idle.notify_all()

    async def drain(self, timeout_s: float) -> bool:
        async with self._idle:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._idle.wait_for(lambda: not self.busy)
        return not self.busy

    async def aclose(self) -> None:
        pass


def _fields(message: Json, name: str) -> Json:
    return message.get(name) or {}


def _umask() -> int:
    value = os.umask(0o077)
    os.umask(value)
    return value


def _option(name: str, default: str) -> str:
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default


def main() -> int:
    import interactd
    import interactd._version as version

    version.__version__ = interactd.__version__ = _option("--version", version.__version__)
    at = next(index for index, word in enumerate(sys.argv) if word in ("mcp", "daemon"))
    command = [sys.executable, "-P", *sys.argv[:at], "daemon"]
    if sys.argv[at] == "mcp":
        from interactd.shim.main import main as shim

        return shim(sys.argv[at + 1 :], command=command)

    from interactd.daemon import main as module
    from interactd.daemon.main import main as daemon
    from interactd.daemon.port import Settings

    if "--asyncio" in sys.argv:
        module._loop_factory = lambda: None  # pyright: ignore[reportPrivateUsage] - as where there is no uvloop
    settings = Settings(idle_exit_s=float(_option("--idle", "60")), drain_s=float(_option("--drain", "3")))
    return daemon(sys.argv[at + 1 :], build=lambda paths: (EchoApplication(), settings), command=command)


if __name__ == "__main__":
    sys.exit(main())
