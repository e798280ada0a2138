"""The dictionary forms: what the command line prints with --json."""

from __future__ import annotations

import json

from interactd.engine.port import Event, Result
from interactd.faces import wire
from interactd.models.port import ModelInfo
from interactd.nouns import GenerationConfig, Interaction, Json, Session, Step, Usage, user_input
from interactd.store.port import Hit, Page, Receipt, Turn

NOW = 1_790_000_000.25
SESSION = Session(
    "ses_1", NOW, NOW + 1, title="t", model="p/m", generation_config=GenerationConfig(thinking_level="low"), turns=2
)
TURN = Interaction(
    "int_1", "ses_1", "completed", NOW, usage=Usage(input=1, total=3), started_at=NOW, finished_at=NOW + 2
)


def test_times_are_utc_with_milliseconds() -> None:
    assert wire.iso(NOW) == "2026-09-21T14:13:20.250Z"
    assert wire.iso(None) is None


def test_provider_state_never_leaves() -> None:
    secret = Step(
        "model_output", {"content": []}, state={"provider": "x", "signature": "sealed"}, seq=3, created_at=NOW
    )
    shown = json.dumps(wire.jsonable([secret, Turn(TURN, [secret]), Result(SESSION, TURN, [secret])]))
    assert "sealed" not in shown
    assert wire.step(secret) == {"type": "model_output", "content": [], "seq": 3, "created_at": wire.iso(NOW)}


def test_every_noun_has_a_form_that_is_json() -> None:
    hit = Hit("ses_1", "int_1", 0, "user_input", NOW, "[word]", 1.23456)
    nouns = [
        SESSION,
        TURN,
        user_input("x"),
        Turn(TURN, [user_input("x")]),
        Result(SESSION, TURN, [user_input("x")], partial_text="y", queue_position=0),
        Event(1, "step.delta", {"a": 1}),
        Receipt("rcp_1", "ses_1", NOW, {"steps": 1}),
        hit,
        ModelInfo("p/m", "p", True, "found"),
        Page([SESSION, hit], "more"),
    ]
    forms: list[Json] = json.loads(json.dumps(wire.jsonable(nouns)))
    assert all(forms)
    assert forms[0]["model"] == "p/m"
    assert forms[1]["usage"] == {"total_input_tokens": 1, "total_tokens": 3}
    assert forms[1]["duration_s"] == 2
    assert forms[4]["queue_position"] == 0
    assert forms[9]["cursor"] == "more"
    assert wire.page(Page([]))["cursor"] is None
