"""`interactd mcp`: what MCP hosts launch. Standard library only, and nothing on stdout but protocol."""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

USAGE = """usage: interactd mcp [--in-process] [--toolsets A,B]

The stdio server that MCP hosts launch: it relays to this user's daemon and starts it if there is none.

  --in-process     no daemon: everything in this process, which ends with the host
  --toolsets A,B   further tool sets to publish
"""


def main(argv: list[str], command: list[str] | None = None) -> int:
    """Run the shim until the host closes; `argv` is what follows `mcp`, `command` starts another daemon than ours.

    Returns the exit code: 0 at the host's end, 2 for wrong usage.
    """
    toolsets: list[str] = []
    in_process = False
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--in-process":
            in_process = True
        elif word == "--toolsets" and rest:
            toolsets += _names(rest.pop(0))
        elif word.startswith("--toolsets="):
            toolsets += _names(word.partition("=")[2])
        else:
            asked = word in ("-h", "--help")
            # On stderr even when asked for: stdout belongs to the protocol.
            sys.stderr.write(USAGE if asked else f"interactd mcp: unknown argument {word!r}\n{USAGE}")
            return 0 if asked else 2
    if in_process:
        from interactd.app import run_stdio

        return run_stdio(toolsets)
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    _fill_standard_descriptors()

    from interactd import paths
    from interactd.shim.relay import Relay
    from interactd.shim.stdio import Host

    Relay(Host(), paths.find(), {"toolsets": toolsets}, command).run()
    # The receiver may be waiting in a system call that only the end of the process ends.
    sys.stderr.flush()
    os._exit(0)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(0)


def _fill_standard_descriptors() -> None:
    """Open what the host left closed, so that our socket does not become somebody's stdout."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
