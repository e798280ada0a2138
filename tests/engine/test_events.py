from __future__ import annotations

import asyncio

import pytest

from interactd.engine.events import Channel
from interactd.engine.port import Event
from interactd.engine.run.draft import Draft
from interactd.models.port import Finished, StepFinished
from interactd.nouns import Interaction, Step, text_content

pytestmark = pytest.mark.anyio


def row(status: str = "in_progress") -> Interaction:
    return Interaction("int_x", "ses_x", status, 0.0)  # pyright: ignore[reportArgumentType]


def done(text: str) -> Step:
    return Step("model_output", {"content": [text_content(text)]})


async def drain(channel: Channel, after: int = 0) -> list[Event]:
    async with asyncio.timeout(5):
        return [event async for event in channel.read(after)]


async def test_events_have_the_shapes_of_the_interactions_api() -> None:
    channel = Channel("int_x")
    channel.status(row())
    channel.start(0, "thought", {})
    channel.delta(0, "thought_summary", "hm")
    channel.start(1, "function_call", {"id": "c1", "name": "f"})
    channel.delta(1, "arguments", '{"a": 1}')
    thought = Step("thought", {"summary": [text_content("hm")]})
    channel.journalled([thought, Step("function_call", {"id": "c1", "name": "f", "arguments": {"a": 1}})], 0)
    channel.status(row("requires_action"))
    channel.end()
    events = await drain(channel)
    seqs = [event.seq for event in events]
    assert seqs == sorted(set(seqs))
    assert seqs[0] > 0
    assert [event.type for event in events] == [
        "interaction.status",
        "step.start",
        "step.delta",
        "step.start",
        "step.delta",
        "step.stop",
        "step.stop",
        "interaction.status",
    ]
    assert all(event.data["event_type"] == event.type for event in events)
    assert events[1].data["step"] == {"type": "thought"}
    assert events[2].data["delta"] == {"type": "thought_summary", "content": {"type": "text", "text": "hm"}}
    assert events[3].data["step"] == {"type": "function_call", "id": "c1", "name": "f"}
    assert events[4].data["delta"] == {"type": "arguments_delta", "arguments": '{"a": 1}'}
    assert events[-1].data["status"] == "requires_action"


async def test_a_late_reader_gets_what_was_so_far_in_one_piece() -> None:
    channel = Channel("int_x")
    channel.start(0, "model_output", {})
    for word in ("one", "two", "three", "four"):
        channel.delta(0, "text", f"{word} ")
    channel.end()
    events = await drain(channel)
    assert [event.type for event in events] == ["step.start", "step.delta"]
    assert events[1].data["delta"] == {"type": "text", "text": "one two three four "}


async def test_a_reader_that_keeps_up_gets_each_piece_and_another_sees_the_same() -> None:
    channel = Channel("int_x")
    got: list[str] = []
    reader = channel.read()
    for word in ("one", "two", "three"):
        channel.delta(0, "text", word)
        got.append((await anext(reader)).data["delta"]["text"])
    channel.end()
    assert [event async for event in reader] == []
    assert got == ["one", "two", "three"]
    assert [event.data["delta"]["text"] for event in await drain(channel)] == got


async def test_reading_after_a_seq_repeats_nothing_and_misses_nothing() -> None:
    channel = Channel("int_x")
    channel.start(0, "model_output", {})
    channel.delta(0, "text", "a")
    reader = channel.read()
    seen = [await anext(reader), await anext(reader)]
    await reader.aclose()  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    channel.delta(0, "text", "b")
    channel.delta(0, "text", "c")
    channel.journalled([done("abc")], 0)
    channel.end()
    rest = await drain(channel, after=seen[-1].seq)
    assert [event.type for event in rest] == ["step.delta", "step.stop"]
    assert rest[0].data["delta"]["text"] == "bc"


async def test_nobody_who_reads_slowly_holds_up_the_writer_or_the_memory() -> None:
    channel = Channel("int_x")
    reader = channel.read()
    channel.start(0, "model_output", {})
    await anext(reader)
    for _ in range(100_000):
        channel.delta(0, "text", "x")
    channel.end()
    rest = [event async for event in reader]
    assert len(rest) == 1
    assert rest[0].data["delta"]["text"] == "x" * 100_000


async def test_a_replayed_step_looks_like_a_streamed_one() -> None:
    live, replayed = Channel("int_x"), Channel("int_x")
    live.start(0, "model_output", {})
    live.delta(0, "text", "hello")
    live.journalled([done("hello")], 0)
    assert replayed.journalled([Step("user_input", {"content": []}), done("hello")], 0) == 1
    live.end()
    replayed.end()
    assert await drain(live) == await drain(replayed)


async def resumed(seen: int, *, attempt: int = 2) -> list[tuple[str, int]]:
    """What a client that had the first `seen` events of attempt 1 gets of another one, which had one step to begin
    with: the daemon died while the second was being streamed."""
    first, later = Channel("int_x", 1), Channel("int_x", attempt)
    first.status(row())
    first.start(0, "model_output", {})
    first.delta(0, "text", "one")
    first.journalled([done("one")], 0)
    first.start(1, "model_output", {})
    first.delta(1, "text", "two, half of it")
    later.status(row())
    later.journalled([done("one")], 0)
    later.start(1, "model_output", {})
    later.delta(1, "text", "two")
    later.journalled([done("two")], 1)
    first.end()
    later.end()
    had = (await drain(first))[:seen]
    got = await drain(later, after=had[-1].seq if had else 0)
    return [(event.type, event.data["index"]) for event in got if event.type != "interaction.status"]


@pytest.mark.parametrize("seen", [0, 1, 2, 3])
async def test_the_next_attempt_tells_a_step_whose_end_was_not_told_from_its_beginning(seen: int) -> None:
    all_of_it = [("step.start", 0), ("step.delta", 0), ("step.stop", 0)]
    assert await resumed(seen) == [*all_of_it, ("step.start", 1), ("step.delta", 1), ("step.stop", 1)]


@pytest.mark.parametrize("seen", [4, 5, 6])
@pytest.mark.parametrize("attempt", [2, 5_000])
async def test_the_next_attempt_does_not_tell_a_step_again_whose_end_was_told(seen: int, attempt: int) -> None:
    assert await resumed(seen, attempt=attempt) == [("step.start", 1), ("step.delta", 1), ("step.stop", 1)]


async def test_no_step_is_told_to_be_over_before_it_is_journalled() -> None:
    channel = Channel("int_x", 1)
    draft = Draft(channel, 0, 1_000)
    draft.feed(StepFinished(0, done("hello")))
    draft.feed(Finished("stop", "stop", None))
    reader = channel.read()
    assert [(await anext(reader)).type, (await anext(reader)).type] == ["step.start", "step.delta"]
    channel.journalled(draft.partial(), 0)
    channel.end()
    assert [event.type async for event in reader] == ["step.stop"]


@pytest.mark.parametrize("status", ["failed", "requires_action"])
async def test_the_status_it_rests_in_is_told_once_to_those_who_had_everything_before(status: str) -> None:
    live, rest, again = Channel("int_x", 3), Channel("int_x", 3), Channel("int_x", 4)
    live.status(row())
    live.start(0, "model_output", {})
    before = len(live._log)  # pyright: ignore[reportPrivateUsage]
    live.status(row(status))
    live.end()
    rest.status(row(status))
    rest.end()
    had = await drain(live)
    told = await drain(rest, after=had[before - 1].seq)
    assert [event.data["status"] for event in told] == [status]
    assert told[0].seq == had[-1].seq, "live and later it is one event"
    again.status(row())
    again.start(0, "function_result", {})
    again.end()
    following = await drain(again, after=told[0].seq)
    assert len(following) == (2 if status == "requires_action" else 0)


async def test_who_follows_the_journal_of_another_daemons_run_misses_and_repeats_nothing() -> None:
    got: list[tuple[str, int]] = []
    after = 0
    for steps in ([], [], [done("one")], [done("one")], [done("one"), done("two"), done("three")]):
        journal = Channel.of_journal(Interaction("int_x", "ses_x", "in_progress", 0.0, epoch=1), steps)
        journal.stands(row())
        for event in await drain(journal, after):
            assert event.seq > after
            after = event.seq
            got.append((event.type, event.data.get("index", -1)))
    told = [one for one in got if one[1] >= 0]
    assert told == [(type, index) for index in range(3) for type in ("step.start", "step.delta", "step.stop")]
    assert sum(index < 0 for _, index in got) == 3, "its status, when something had changed"


async def test_a_step_half_told_live_is_told_whole_from_the_journal_elsewhere() -> None:
    live = Channel("int_x", 1)
    live.status(row())
    live.start(0, "model_output", {})
    live.delta(0, "text", "on")
    live.end()
    after = (await drain(live))[-1].seq
    journal = Channel.of_journal(Interaction("int_x", "ses_x", "in_progress", 0.0, epoch=1), [done("one")])
    told = await drain(journal, after)
    assert [event.type for event in told] == ["step.start", "step.delta", "step.stop"]
    assert told[1].data["delta"]["text"] == "one"
