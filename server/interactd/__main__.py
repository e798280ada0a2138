"""argv -> shim | daemon | a people's command. Imports nothing itself: hosts wait for the shim."""

from __future__ import annotations

import sys


def main() -> int:
    """Run what the arguments ask for and return the exit code."""
    argv = sys.argv[1:]
    if argv[:1] == ["mcp"]:
        from interactd.shim.main import main as shim

        return shim(argv[1:], in_process=_in_process)
    if argv[:1] == ["daemon"]:
        from interactd.daemon.main import main as daemon

        return daemon(argv[1:])
    from interactd.cli.main import main as people

    return people(argv)


def _in_process(toolsets: list[str]) -> int:
    from interactd.app import run_stdio

    return run_stdio(toolsets)


if __name__ == "__main__":
    sys.exit(main())
