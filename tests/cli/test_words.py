"""What a terminal may be sent, and sentences for people."""

from __future__ import annotations

import pytest

from interactd.cli.durations import span
from interactd.cli.words import for_people, repair, safe


def test_escapes_do_not_reach_the_terminal() -> None:
    assert safe("a\x1b[2Jb\x07c\rd\x9be\nf\tg") == "a[2Jbcde\nf\tg"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("list_sessions shows the ids there are.", "`interactd sessions` shows the ids there are."),
        ("Check it with list_agents or `interactd models`.", "Check it with `interactd models`."),
        ("list_agents (or `interactd models`) shows it.", "`interactd models` shows it."),
        ('Next: get_session(session_id="ses_1").', "Next: `interactd show`."),
        ("No tool is named here.", "No tool is named here."),
    ],
)
def test_tools_are_told_as_commands(said: str, shown: str) -> None:
    assert for_people(said) == shown


def test_a_conflict_names_the_turn_that_is_in_the_way() -> None:
    assert "interactd show int_1" in repair("conflict", "Call get_interaction.", "int_1")


@pytest.mark.parametrize(("seconds", "said"), [(-1, "0s"), (59, "59s"), (60, "1m"), (7200, "2h"), (200_000, "2d")])
def test_a_span_is_told_in_its_largest_unit(seconds: float, said: str) -> None:
    assert span(seconds) == said
