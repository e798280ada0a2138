"""Daemons to be killed: real engines that answer newline-delimited `{"call", ...arguments}` on a socket."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from interactd.errors import InteractdError

_LOOK_EVERY_S = 0.5


async def serve(socket: str, called: object, shown: Callable[[Any], Any]) -> None:
    """Answer calls of `called`'s methods, as `shown`, until whoever started this process is gone."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            asked = json.loads(line)
            try:
                reply = {"result": shown(await getattr(called, asked.pop("call"))(**asked))}
            except InteractdError as error:
                reply = {"error": error.as_dict()}
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()
        writer.close()

    parent = os.getppid()

    def leave_with_parent() -> None:
        if os.getppid() != parent:
            os._exit(1)
        asyncio.get_running_loop().call_later(_LOOK_EVERY_S, leave_with_parent)

    leave_with_parent()
    server = await asyncio.start_unix_server(answer, socket + ".new", limit=1 << 24)
    # Appears only when it answers.
    Path(socket + ".new").rename(socket)
    await server.serve_forever()


def fork_each(daemon: Callable[[str], Coroutine[Any, Any, None]]) -> None:
    """Fork a daemon for each line on stdin, which it is given, and print its pid: a hundred deaths cost little more
    than one import."""
    alive: set[int] = set()
    for line in sys.stdin:
        born = os.fork()
        if not born:
            asyncio.run(daemon(line.strip()))
            os._exit(0)
        alive.add(born)
        print(born, flush=True)
        alive -= {pid for pid in alive if os.waitpid(pid, os.WNOHANG)[0]}
    for pid in alive:
        # Whoever ran us has gone: so must the daemons. Not reaped yet, so the pid is still theirs.
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
