"""The end of what running code has printed, as people are shown it."""

from __future__ import annotations

from interactd_tools.answers.printed import LINES, WIDTH, last_line, tail


def test_nothing_printed_is_nothing_shown() -> None:
    assert tail("") == tail("\n \n") == last_line("\r\n") == ""


def test_only_the_last_lines_are_shown() -> None:
    shown = tail("".join(f"line {number}\n" for number in range(100))).splitlines()
    assert shown[0] == "Printed so far (the end of it):"
    assert shown[1:] == [f"line {number}" for number in range(100 - LINES, 100)]


def test_a_progress_bar_is_its_last_state() -> None:
    assert last_line("done\n10%\r20%\r30%") == "30%"
    assert last_line("10%\r20%\r") == "20%"


def test_what_steers_a_terminal_or_is_very_long_is_made_harmless() -> None:
    line = last_line("\x1b[2J" + "y" * 10_000)
    assert line.isprintable()
    assert line.startswith("\\x1b[2J")
    assert len(line) <= WIDTH
