"""Homes with sessions in them, and archives looked into."""

from __future__ import annotations

import json
import zipfile
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from engine.kit import Clock, Rig, ScriptedModel, called, ended, rig, said
from interactd.engine.archive.answers import Exported, Imported
from interactd.nouns import Json, Step, text_content

MANIFEST = "manifest.json"


def thinking(text: str) -> list[Any]:
    """An answer with a thought whose signature only its provider can read."""
    from interactd.models.port import StepFinished, StepStarted

    state = {"provider": "scripted", "model": "m1", "signature": "c2lnbmF0dXJl", "half": "\ud83d"}
    return [
        StepStarted(0, "thought"),
        StepFinished(0, Step("thought", {"summary": [text_content("hm, " + text)]}, state)),
        *said(text, 1),
        *ended(),
    ]


async def fill(it: Rig) -> dict[str, str]:
    """Make sessions of every sort; returns their ids by what they are."""
    engine, model = it.engine, it.model
    plain = await engine.create_session(title="Plain", labels={"for": "tests"}, system_instruction="Be brief.", ttl_s=0)
    model.script(thinking("first answer"), "second answer", "third answer")
    for text in ("alpha question", "beta question \u00e9\u4e2d\u6587", "gamma question"):
        await it.turn(plain.id, text)
    turns = (await engine.transcript(plain.id))[1]
    fork = await engine.fork_session(plain.id, at=turns[1].interaction.id, title="Fork")
    await it.turn(fork.id, "delta question")
    # A branch inside of the session.
    await it.turn(plain.id, "epsilon question", previous_interaction_id=turns[0].interaction.id)
    waiting = await engine.create_session(
        tools=[{"type": "function", "name": "look", "parameters": {"type": "object"}}]
    )
    model.script([*called("look", {"where": "there"}, "c1"), *ended("tool_calls")])
    await it.turn(waiting.id, "zeta question")
    empty = await engine.create_session(title="Empty", ttl_s=3600)
    return {"plain": plain.id, "fork": fork.id, "waiting": waiting.id, "empty": empty.id}


@asynccontextmanager
async def home(folder: Path, **more: Any) -> AsyncGenerator[Rig]:
    """An engine on a home of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    async with rig(folder / "interactd.db", model=ScriptedModel(), **more) as it:
        yield it


async def exported(it: Rig, to: Path, sessions: list[str] | None = None, **more: Any) -> Exported:
    done = await it.engine.export_data(sessions, path=str(to), **more)
    assert done is not None
    return done


async def imported(it: Rig, path: Path, **more: Any) -> Imported:
    done = await it.engine.import_data(str(path), **more)
    assert done is not None
    return done


def members(path: Path) -> dict[str, bytes]:
    """Every member's bytes; of the manifest what may not differ."""
    with zipfile.ZipFile(path) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(found[MANIFEST])
    del manifest["created_at"]
    return {**found, MANIFEST: json.dumps(manifest).encode()}


def lines(path: Path, name: str) -> list[Json]:
    return [json.loads(line) for line in members(path)[name].splitlines()]


def rewritten(path: Path, change: Callable[[dict[str, bytes]], object], *, honest: bool = True) -> Path:
    """A copy of an archive in which `change` changed members; `honest` makes the manifest fit again."""
    import hashlib

    with zipfile.ZipFile(path) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    change(found)
    if honest and MANIFEST in found:
        manifest = json.loads(found[MANIFEST])
        manifest["members"] = [
            {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in found.items()
            if name != MANIFEST
        ]
        found[MANIFEST] = json.dumps(manifest).encode()
    target = path.with_name(f"changed-{len(list(path.parent.iterdir()))}.zip")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in found.items():
            out.writestr(name, data)
    return target


__all__ = ["Clock", "exported", "fill", "home", "imported", "lines", "members", "rewritten", "thinking"]
