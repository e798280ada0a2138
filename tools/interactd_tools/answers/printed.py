"""What running code has printed so far, for people who wait for it."""

from __future__ import annotations

from interactd_tools.answers.text import one_line
from interactd_tools.arguments.problems import printable

LINES = 12
WIDTH = 200


def tail(printed: str) -> str:
    """Return a block with the last lines of it; empty when nothing was printed."""
    lines = lines_of(printed)
    if not lines:
        return ""
    shown = [one_line(printable(line), WIDTH) for line in lines[-LINES:]]
    return "\n".join(["Printed so far (the end of it):", *shown])


def last_line(printed: str) -> str:
    """Return the last line with anything on it, short and printable."""
    lines = lines_of(printed)
    return one_line(printable(lines[-1]), WIDTH // 2) if lines else ""


def lines_of(printed: str) -> list[str]:
    """Return the lines that have anything on them; of one that a progress bar wrote over, its last state."""
    lines = (line.rstrip("\r").rpartition("\r")[2].rstrip() for line in printed.replace("\r\n", "\n").split("\n"))
    return [line for line in lines if line.strip()]
