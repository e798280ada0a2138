"""What users do, each from beginning to end, with what has to be true after it however often a daemon died."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import zipfile
from pathlib import Path
from typing import Any

from chaos.instants.stage import Scene, Stage
from chaos.runs.kit.world import Failed, Json, alive, until


async def run(stage: Stage) -> None:
    """A run of an agent with code, files and effects; its artifacts, and a zip of them."""
    session = await stage.session("run", title="first")
    number = stage.plan(("write", "code"), ("never", "safe"))
    id = await stage.send(session, number)
    seen = await stage.ended(id)
    assert await stage.send(session, number) == id, "the same key is the same interaction"
    assert await refused(stage, "send_turn", session_id=session, content="other", background=True,
                         idempotency_key=f"{stage.tag}-run{number}") == "conflict"  # fmt: skip
    stage.judge_run(seen, number)
    kept = await stage.do("artifacts", interaction_id=id)
    names = {one["name"] for one in kept}
    written = {f"{call}.txt" for call in stage.plans.ids(number) if call.endswith("-write")}
    assert written <= names, (written, names)
    if kept:
        packed = await stage.do("zip_artifacts", interaction_id=id, names=[])
        with zipfile.ZipFile(packed["path"]) as archive:
            assert archive.testzip() is None
            assert set(archive.namelist()) == names
    for one in kept:
        assert Path(one["path"]).stat().st_size == one["size_bytes"]


async def places(stage: Stage) -> None:
    """An environment that is made for a turn, forked for another, and both deleted."""
    body = {"sources": [{"type": "inline", "content": stage.tag, "target": "/workspace/seed.txt"}]}
    session = await stage.session("places", environment=body)
    first, second = stage.run(), stage.run()
    one = (await stage.ended(await stage.send(session, first)))["interaction"]["environment_id"]
    fork = await stage.session("fork", environment={"from_environment": one})
    seen = await stage.ended(await stage.send(fork, second))
    two = seen["interaction"]["environment_id"]
    assert two != one
    stage.judge_run(seen, second)
    for place in (one, two):
        names = {file["path"].rpartition("/")[2] for file in await stage.do("environment_files", environment_id=place)}
        assert "seed.txt" in names
    there = {item["id"] for item in (await stage.do("list_environments", limit=1000))["items"]}
    made = {id for (id,) in stage.rows("SELECT id FROM environments WHERE status = 'active'")}
    assert there == made
    for place in (two, one):
        receipt = await stage.do("delete_environment", environment_id=place)
        assert await stage.do("delete_environment", environment_id=place) == receipt
        assert not (stage.world.seat.paths.data / "environments" / place).exists()


async def archive(stage: Stage) -> None:
    """An export, its import as new, a delete, its restoration, and a delete that leaves no byte."""
    secret = f"marrow{stage.tag}{os.urandom(4).hex()}"
    session = await stage.session("archive", title=secret, environment={})
    number = stage.run()
    id = await stage.send(session, number, content=f"run {number} {secret}")
    stage.judge_run(await stage.ended(id), number)
    target = stage.folder / f"{stage.tag}.zip"
    out: Json = {"session_ids": [session], "path": str(target), "with_environments": True}
    try:
        # When the daemon dies after it was put there, it is there already.
        await stage.do("export_data", **out)
    except Failed as error:
        if error.code != "conflict" or not (stage.died or stage.full):
            raise
    with zipfile.ZipFile(target) as whole:
        assert whole.testzip() is None
    sessions = len(stage.rows("SELECT id FROM sessions"))
    come = await stage.do("import_data", path=str(target), as_new=True)
    copies = [one for (one,) in stage.rows("SELECT id FROM sessions WHERE title = ?", secret) if one != session]
    assert len(copies) <= 1 + stage.again["import_data"]
    assert come["sessions"][0] in copies
    assert len(stage.rows("SELECT id FROM sessions")) == sessions + len(copies)
    receipt = await stage.do("delete_session", session_id=session)
    again = await stage.do("delete_session", session_id=session)
    assert {**again, "pending": None} == {**receipt, "pending": None}
    assert await refused(stage, "get_session", session_id=session) == "deleted"
    await stage.do("import_data", path=str(target), restore=True, done=("conflict",))
    whole_again = await stage.do("get_session", session_id=session)
    assert len(whole_again["turns"]) == 1
    kept = await stage.do("artifacts", interaction_id=id)
    for one in kept:
        assert Path(one["path"]).stat().st_size == one["size_bytes"]
    for one in (session, *copies):
        await stage.do("delete_session", session_id=one)
    left = [path.name for path in target.parent.iterdir() if path != target]
    assert left == [], f"beside the export lies {left}"
    target.unlink()
    environment = stage.rows("SELECT id FROM environments WHERE status = 'active' AND body LIKE '%made_for%'")
    assert environment == [], "what was made for their turns goes with them"
    found = holding(stage.world.seat.paths.data, secret)
    assert found == [], f"{found} hold what was deleted"
    names = stage.rows("SELECT id FROM artifacts")
    assert names == []
    contents = [path for path in (stage.world.seat.paths.data / "artifacts").glob("??/*")]
    assert contents == [], "contents go with their last row"


async def schedules(stage: Stage) -> None:
    """A trigger that is made, run, paused, changed and deleted; a webhook whose secret is changed."""
    heard = stage.folder / f"{stage.tag}.heard"
    hook = await stage.do(
        "create_webhook", command=f"echo \"$INTERACTD_DELIVERY $INTERACTD_ID\" >> '{heard}'", shell=True,
        subscribed_events=["interaction.completed"], idempotency_key=f"{stage.tag}-w",
    )  # fmt: skip
    key = f"{stage.tag}-hook"
    far: Json = {"uri": "http://127.0.0.1:9/x", "allow_local": True, "subscribed_events": ["trigger.failed"]}
    signed = await stage.do("create_webhook", idempotency_key=key, **far)
    number = stage.run()
    work = {"agent": "helper", "input": f"run {number}"}
    made = await stage.do("create_trigger", schedule="0 9 1 1 *", work=work, idempotency_key=f"{stage.tag}-t")
    same = await stage.do("create_trigger", schedule="0 9 1 1 *", work=work, idempotency_key=f"{stage.tag}-t")
    assert same["id"] == made["id"]
    ran = await stage.do("run_trigger", trigger_id=made["id"], idempotency_key=f"{stage.tag}-now")
    id = await started(stage, ran["id"])
    seen = await stage.ended(id)
    stage.judge_run(seen, number)
    executions = (await stage.do("list_executions", trigger_id=made["id"]))["items"]
    assert [one["interaction_id"] for one in executions] == [id], "run once by hand is run once"
    for status in ("paused", "active", "paused"):
        changed = await stage.do("update_trigger", trigger_id=made["id"], changes={"status": status})
        assert changed["status"] == status
    changed = await stage.do("update_trigger", trigger_id=made["id"], changes={"schedule": "every 3h"})
    assert (changed["schedule"], changed["status"]) == ("every 3h", "paused")
    turned = await stage.do("rotate_secret", webhook_id=signed["id"])
    shown = await stage.do("get_webhook", webhook_id=signed["id"])
    newest = shown["signing_secrets"][0]["truncated_secret"]
    assert turned["new_signing_secret"].endswith(newest[-4:]), "the secret that was shown last signs"
    valid = [signed["new_signing_secret"].endswith(one["truncated_secret"][-4:]) for one in shown["signing_secrets"]]
    assert any(valid), "and so does the one that the receiver has, however often the call was made"
    secrets = json.loads((stage.world.seat.paths.data / "webhook-secrets.json").read_text())
    assert secrets["credentials"]
    heard_in = await until(lambda: heard.exists() and heard.read_text().split())
    assert heard_in[1] == id
    assert len({line.split()[0] for line in heard.read_text().splitlines()}) == 1, "one event, one delivery id"
    for one in (hook["id"], signed["id"]):
        await stage.do("delete_webhook", webhook_id=one, done=("not_found",))
    await stage.do("delete_trigger", trigger_id=made["id"], done=("not_found", "deleted"))
    assert stage.rows("SELECT id FROM triggers") == []
    heard.unlink()


async def questions(stage: Stage) -> None:
    """A run that asks and is answered, one that is cancelled while it waits, one that is cancelled at work."""
    number = stage.run()
    session = await stage.session("asks", approvals="always_ask")
    asks = await stage.send(session, number)
    answers = 0
    while (seen := await stage.ended(asks))["interaction"]["status"] == "requires_action":
        asked = seen["waiting_for"]
        assert asked
        results = [{"call_id": one["id"], "result": "allow"} for one in asked]
        key = f"{stage.tag}-answer{answers}"
        await stage.do("respond", interaction_id=asks, results=results, idempotency_key=key)
        await stage.do("respond", interaction_id=asks, results=results, idempotency_key=key)
        answers += 1
        assert answers < 20 + len(stage.died)
    for step in seen["steps"]:
        if step["type"].endswith("_result") and step.get("is_error"):
            assert stage.died, step
    assert seen["interaction"]["status"] == "completed"

    waits = await stage.send(await stage.session("waits", approvals="always_ask"), stage.run())
    assert (await stage.ended(waits))["interaction"]["status"] == "requires_action"
    stopped = await stage.do("cancel", interaction_id=waits)
    assert stopped["interaction"]["status"] == "cancelled"

    stage.world.marks.gate = gate = asyncio.Event()
    try:
        number = stage.plan(("never",))
        works = await stage.send(await stage.session("works"), number)
        await until(lambda: stage.world.marks.seen[f"r{number}-0-0-never"] or not_running(stage))
        stopped = await stage.do("cancel", interaction_id=works)
        assert stopped["interaction"]["status"] == "cancelled", stopped["interaction"]
    finally:
        gate.set()
        stage.world.marks.gate = None
    for id in (waits, works):
        assert (await stage.do("get_interaction", interaction_id=id))["interaction"]["status"] == "cancelled"
    rows = dict(stage.rows("SELECT id, status FROM interactions"))
    assert {rows[waits], rows[works]} == {"cancelled"}


async def money(stage: Stage) -> None:
    """Turns under a session's budget until it is used up, a larger budget, and a turn that goes on."""
    session = await stage.session("money", budget={"usd": 100})
    for _ in range(2):
        number = stage.run()
        stage.judge_run(await stage.ended(await stage.send(session, number)), number)
    await stage.do("set_budget", session_id=session, budget={"usd": 0.0000001})
    seen = await stage.ended(await stage.send(session, stage.run()))
    assert seen["interaction"]["status"] == "budget_exceeded", seen["interaction"]
    await stage.do("set_budget", session_id=session, budget={"usd": 100})
    number = stage.run()
    stage.judge_run(await stage.ended(await stage.send(session, number)), number)
    lines = stage.rows("SELECT sum(cost_nano) FROM ledger WHERE session_id = ?", session)[0][0]
    assert stage.rows("SELECT nano FROM spent WHERE scope = 'session' AND key = ?", session) == [(lines,)]


async def handover(stage: Stage) -> None:
    """A daemon that is told to leave in the middle of an answer and of a call, and the next one that goes on."""
    session, other = await stage.session("leaves"), await stage.session("waits")
    number, second = stage.plan(("safe", "write")), stage.run()
    stage.world.marks.gate = gate = asyncio.Event()
    try:
        one = await stage.send(session, number)
        two = await stage.send(other, second)
        three = await stage.send(session, stage.run())
        await until(lambda: stage.world.marks.seen[f"r{number}-0-0-safe"] or not_running(stage))
        if not not_running(stage):
            stage.world.kill(signal.SIGTERM)
            await asyncio.sleep(0.05)
    finally:
        gate.set()
        stage.world.marks.gate = None
    await until(lambda: not_running(stage))
    if stage.fell:
        await stage.revive()
    else:
        await stage.start(stage.more.pop(0) if stage.more else "")
    seen = await stage.ended(one)
    made = [s["id"] for s in seen["steps"] if s["type"].endswith("_call")]
    assert made == stage.plans.ids(number)
    assert seen["interaction"]["status"] == "completed"
    stage.judge_run(await stage.ended(two), second)
    assert (await stage.ended(three))["interaction"]["status"] == "completed"


async def large(stage: Stage) -> None:
    """A session too large for one transaction, deleted; and one that expired, swept."""
    secret = f"boulder{stage.tag}{os.urandom(4).hex()}"
    session = await stage.session("large", title=secret, agent=None)
    for _ in range(3):
        number = stage.plan()
        text = f"run {number} {secret} " + f"{secret} and more of it. " * 12_000
        stage.judge_run(await stage.ended(await stage.send(session, number, content=text)), number)
    await stage.do("search", query=secret)
    receipt = await stage.do("delete_session", session_id=session)
    assert (receipt["removed"]["sessions"], receipt["removed"]["interactions"]) == (1, 3), receipt
    again = await stage.do("delete_session", session_id=session)
    assert {**again, "pending": None} == {**receipt, "pending": None}
    if receipt.get("pending"):
        await stage.do("vacuum")
    found = holding(stage.world.seat.paths.data, secret)
    assert found == [], f"{found} hold what was deleted"
    assert stage.rows("SELECT id FROM artifacts") == []


SCENES: dict[str, Scene] = {
    "run": run,
    "places": places,
    "archive": archive,
    "schedules": schedules,
    "questions": questions,
    "money": money,
    "handover": handover,
    "large": large,
}


def not_running(stage: Stage) -> bool:
    return not alive(stage.world.pid)


async def started(stage: Stage, execution: str) -> str:
    """Wait until an execution has its interaction; returns its id."""
    while True:
        found = await stage.do("get_execution", execution_id=execution)
        if found.get("interaction_id"):
            return found["interaction_id"]
        assert found["status"] in ("queued", "in_progress"), found
        await asyncio.sleep(0.05)


async def refused(stage: Stage, method: str, **params: Any) -> str:
    """The code with which a call is refused."""
    try:
        answer = await stage.do(method, **params)
    except Failed as error:
        return error.code
    raise AssertionError(answer)


def holding(folder: Path, text: str) -> list[str]:
    """Files with that text in them."""
    mark = text.encode()
    return [str(path) for path in folder.rglob("*") if path.is_file() and mark in path.read_bytes()]
