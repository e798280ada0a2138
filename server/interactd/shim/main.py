"""`interactd mcp`: what MCP hosts launch. Standard library only, and nothing on stdout but protocol."""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

USAGE = """usage: interactd mcp [--in-process] [--toolsets A,B]

The stdio server that MCP hosts launch: it relays to this user's daemon and starts it if there is none.

  --in-process     no daemon: everything in this process, which ends with the host
  --toolsets A,B   further tool sets to publish
"""


def main(
    argv: list[str], in_process: Callable[[list[str]], int] | None = None, command: list[str] | None = None
) -> int:
    """Run the shim until the host closes.

    Args:
        argv: what follows `mcp`.
        in_process: what `--in-process` hands over to, given the tool sets; the shim itself knows no server.
        command: what to start when there is no daemon; default: this installation's.

    Returns:
        The exit code: 0 at the host's end, 2 for wrong usage.
    """
    toolsets: list[str] = []
    alone = False
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--in-process" and in_process:
            alone = True
        elif word == "--toolsets" and rest:
            toolsets += _names(rest.pop(0))
        elif word.startswith("--toolsets="):
            toolsets += _names(word.partition("=")[2])
        else:
            asked = word in ("-h", "--help")
            # On stderr even when asked for: stdout belongs to the protocol.
            sys.stderr.write(USAGE if asked else f"interactd mcp: unknown argument {word!r}\n{USAGE}")
            return 0 if asked else 2
    if alone and in_process:
        return in_process(toolsets)
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    _fill_standard_descriptors()
    if os.isatty(0):
        sys.stderr.write("interactd: this is the MCP server that hosts launch; it waits for JSON-RPC on stdin. ")
        sys.stderr.write("To talk to a model yourself: interactd chat\n")

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
