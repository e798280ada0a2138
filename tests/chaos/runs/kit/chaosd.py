"""interactd itself, with three tools more that leave a mark outside of every sandbox.

    chaosd.py [--version X] mcp|daemon ...      as `interactd mcp|daemon`
    chaosd.py nursery                           forks a daemon for each line on stdin and says its pid, so that two
                                                hundred deaths cost little more than one import

The tools are called bump_safe, bump_ask and bump_never, after their `replay`. Each tells the counter that listens on
INTERACTD_CHAOS_COUNTER (host:port) which call it is, and waits until the counter has written that down.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

IDLE_S = 0.0
TOOLS = ("code_execution", "files", "bump_safe", "bump_ask", "bump_never")


def _option(name: str, default: str) -> str:
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default


def build(paths: Any) -> Any:
    """The product's own application; its agent `helper` may use the three tools."""
    from engine.agents.kit import Folder
    from interactd import app, config
    from interactd.builtins.declare import declare
    from interactd.builtins.port import Outcome, ToolContext
    from interactd.daemon.port import Settings

    host, _, port = os.environ["INTERACTD_CHAOS_COUNTER"].rpartition(":")

    class Bump:
        parallel = False

        def __init__(self, replay: Any) -> None:
            self.name = f"bump_{replay}"
            self.replay = replay
            self.declaration = declare(self.name, "Bump the counter.", {})

        async def call(self, arguments: dict[str, Any], ctx: ToolContext) -> Outcome:
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(f"{ctx.call_id} {os.getpid()}\n".encode())
                said = await reader.readline()
            finally:
                writer.close()
            return Outcome(said.decode().strip() or "the counter has gone", is_error=not said)

    agents = Folder(paths.cache / f"agents-{os.getpid()}-{time.time_ns()}")
    agents.put(tools=TOOLS)
    settings = config.load(paths)
    made = app.build(paths, settings)
    core = made.engine._core  # pyright: ignore[reportPrivateUsage] - the product has no way to add tools from outside
    core.extra_tools = [Bump(replay) for replay in ("safe", "ask", "never")]
    core.agents = agents
    return made, Settings(idle_exit_s=float(_option("--idle", str(IDLE_S))), log_level=settings.daemon.log_level)


def nursery(command: list[str]) -> None:
    """Fork daemons until stdin ends; then end those that are left."""
    from importlib import import_module

    from chaos.instants.points import arm
    from interactd.daemon.main import main as daemon
    from interactd.paths import find

    for name in ("interactd.app", "interactd.daemon.listen", "interactd.daemon.server", "engine.agents.kit"):
        import_module(name)
    alive: set[int] = set()
    for line in sys.stdin:
        born = os.fork()
        if not born:
            os.setsid()
            # XDG folders that this daemon has for itself: `NAME=value` words.
            os.environ |= dict(word.split("=", 1) for word in line.split())
            paths = find().make()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            log = os.open(paths.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            for number in (1, 2):
                os.dup2(log, number)
            arm()
            os._exit(daemon(["--foreground"], build=build, command=command))
        alive.add(born)
        print(born, flush=True)
        alive -= {pid for pid in alive if os.waitpid(pid, os.WNOHANG)[0]}
    for pid in alive:
        # Whoever ran us has gone: so must they. Not reaped yet, so the number is still theirs.
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def main() -> int:
    import interactd
    import interactd._version as version

    version.__version__ = interactd.__version__ = _option("--version", version.__version__)
    at = next(index for index, word in enumerate(sys.argv) if word in ("mcp", "daemon", "nursery"))
    command = [sys.executable, "-P", *sys.argv[:at], "daemon"]
    if sys.argv[at] == "mcp":
        from interactd.shim.main import main as shim

        return shim(sys.argv[at + 1 :], command=command)
    if sys.argv[at] == "nursery":
        nursery(command)
        return 0
    from interactd.daemon.main import main as daemon

    return daemon(sys.argv[at + 1 :], build=build, command=command)


if __name__ == "__main__":
    sys.exit(main())
