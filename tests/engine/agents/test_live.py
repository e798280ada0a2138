"""What running code prints can be seen while it runs, and is journalled once: as the result it came to."""

from __future__ import annotations

import asyncio

import pytest

from engine.agents.kit import RUN_PATIENCE_S, Rig, result_of, runs, several
from engine.agents.test_hooks import command, guarded
from engine.kit import Item
from interactd.builtins.printed import Printed
from interactd.engine.agents.live import Live
from interactd.engine.events import MAX_OUTPUT, TAIL, Channel
from interactd.engine.port import Event
from interactd.nouns import Step

pytestmark = pytest.mark.anyio

WAITS = """
import os, time
print('one', flush=True)
while not os.path.exists('go'): time.sleep(0.02)
print('two')
"""


def printed_in(event: Event) -> str:
    """The output that an event shows, if it shows any."""
    if event.type != "step.delta" or event.data["delta"]["type"] != "code_execution_result":
        return ""
    return str(event.data["delta"]["result"])


async def started(it: Rig, *answers: str | list[Item]) -> str:
    """Begin a turn; the id of its interaction."""
    it.model.script(*answers)
    session = it.sessions[-1] if it.sessions else await it.session()
    return (await it.engine.send_turn(session.id, "go")).interaction.id


async def let_go(it: Rig, interaction_id: str) -> None:
    """Make the file that the code waits for, where the sandbox sees it."""
    found = await it.engine.get_interaction(interaction_id)
    folder = next(it.paths.data.rglob(f"{found.environment_id}/**/ws"), None)
    assert folder is not None
    (folder / "go").touch()


async def test_output_comes_as_deltas_of_the_result_while_the_code_runs(it: Rig) -> None:
    interaction_id = await started(it, runs(WAITS), "done")
    events: list[Event] = []
    async with asyncio.timeout(RUN_PATIENCE_S):
        async for event in it.engine.events(interaction_id):
            events.append(event)
            if "one" in printed_in(event):
                seen = await it.engine.get_interaction(interaction_id)
                assert seen.printed == "one\n"
                assert [step.type for step in seen.steps] == ["user_input", "code_execution_call"]
                await let_go(it, interaction_id)
    of_result = [e for e in events if e.data.get("index") == 1]
    assert [e.type for e in of_result][:2] == ["step.start", "step.delta"]
    assert [e.type for e in of_result].count("step.start") == 1
    assert of_result[0].data["step"] == {"type": "code_execution_result", "call_id": "c1"}
    said = "".join(e.data["delta"]["result"] for e in of_result if e.type == "step.delta")
    assert said == "one\ntwo\n"
    assert of_result[-1].type == "step.stop"
    assert of_result[-1].data["step"]["result"] == "one\ntwo"
    done = await it.ended(interaction_id)
    assert done.printed == ""
    assert [step.type for step in done.steps].count("code_execution_result") == 1


async def test_who_comes_late_reads_the_result_and_no_pieces_of_it(it: Rig) -> None:
    interaction_id = await started(it, runs("print('early')"), "done")
    await it.ended(interaction_id)
    events = await it.events(interaction_id)
    assert [e.data["index"] for e in events if e.type == "step.start"] == [0, 1, 2]
    assert [e for e in events if e.type == "step.delta" and e.data["index"] == 1] == []
    assert next(e for e in events if e.type == "step.stop" and e.data["index"] == 1).data["step"]["result"] == "early"


async def test_what_a_cancelled_call_had_printed_was_shown_and_is_kept_once(it: Rig) -> None:
    interaction_id = await started(it, runs("import time\nprint('begun', flush=True)\nwhile True: time.sleep(0.02)"))
    async with asyncio.timeout(RUN_PATIENCE_S):
        async for event in it.engine.events(interaction_id):
            if "begun" in printed_in(event):
                break
    result = await it.engine.cancel(interaction_id)
    assert result.interaction.status == "cancelled"
    assert result_of(result)["result"].startswith("begun")
    assert [step.type for step in result.steps].count("code_execution_result") == 1


async def test_two_calls_of_one_answer_are_shown_under_their_own_results(it: Rig) -> None:
    code = [("code_execution", {"language": "bash", "code": f"echo {word}; sleep 0.3"}, word) for word in ("a", "b")]
    session = await it.session()
    it.model.script(several(*code), "done")
    sent = await it.engine.send_turn(session.id, "go")
    shown: dict[int, str] = {}
    async with asyncio.timeout(RUN_PATIENCE_S):
        async for event in it.engine.events(sent.interaction.id):
            if text := printed_in(event):
                shown[event.data["index"]] = shown.get(event.data["index"], "") + text
    assert shown == {2: "a\n", 3: "b\n"}


async def test_output_that_a_hook_may_withhold_is_not_shown_before_it_has_spoken(it: Rig) -> None:
    deny = command('echo \'{"decision": "deny", "reason": "secret"}\'')
    it.agents.put(id="guarded", hooks=guarded("code_execution", deny, moment="post_tool_execution"))
    session = await it.session(agent="guarded")
    it.model.script(runs("import time\nprint('a secret', flush=True)\ntime.sleep(0.4)"), "ok")
    sent = await it.engine.send_turn(session.id, "go")
    events = await it.events(sent.interaction.id)
    assert "a secret" not in str([event.data for event in events if event.data.get("index") == 1])


async def test_a_flood_of_output_costs_bounded_memory_and_its_end_is_what_is_kept() -> None:
    channel = Channel("int_x")
    for number in range(3_000):
        channel.output(0, "c1", f"{number:05}" + "x" * 995)
    assert len(channel.printed) == TAIL
    reader = channel.read()
    kept = ""
    async with asyncio.timeout(5):
        async for event in reader:
            kept += printed_in(event)
            if "02999" in kept:
                break
    assert len(kept) <= MAX_OUTPUT + 1_000
    assert "02999" in kept
    assert "00000" not in kept
    channel.journalled([Step("code_execution_result", {"call_id": "c1", "result": "all"})], 0)
    channel.end()
    late = [event async for event in channel.read()]
    assert [event.type for event in late] == ["step.start", "step.stop"]


async def test_letters_one_by_one_make_few_events_and_every_letter_is_there() -> None:
    channel = Channel("int_x")
    shown = Live(channel, 0, "c1")
    for letter in "hello" * 200:
        shown.heard(letter)
    shown.end()
    channel.end()
    events = [event async for event in channel.read()]
    assert [event.type for event in events] == ["step.start", "step.delta"]
    assert events[1].data["delta"] == {"type": "code_execution_result", "result": "hello" * 200}


def test_a_character_that_comes_in_two_pieces_is_one_and_only_the_end_is_kept() -> None:
    printed, heard = Printed(kept=10), list[str]()
    printed.listen(heard.append)
    for byte in "naïve – ".encode():
        printed.feed(bytes([byte]))
    assert "".join(heard) == "naïve – "
    printed.feed(b"0123456789abc")
    assert printed.tail == "3456789abc"
    assert "".join(heard).endswith("0123456789abc")
