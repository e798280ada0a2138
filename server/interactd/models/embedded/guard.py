"""Children that do not outlive us: on Linux the kernel kills them when their parent dies, however it died.

Also a command: `python -m interactd.models.embedded.guard COMMAND …` runs COMMAND under that promise. Standard library
only. Elsewhere than on Linux the promise must come from a pipe that the child reads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int | None = None) -> None:
    """Have the kernel kill this process when the thread that started it ends. It survives an exec.

    Args:
        parent: the pid that should be our parent; if it is not any more, the process exits at once.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # The parent may have died before the call above was in force.
    if parent is not None and os.name == "posix" and os.getppid() != parent:
        os._exit(0)


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
