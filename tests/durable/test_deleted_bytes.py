"""After a trigger or a webhook was deleted no file of the home holds a byte of it, but for the turns it started."""

from __future__ import annotations

from pathlib import Path

import pytest

from durable.kit import receiver, rig, status
from engine.retention.test_deletion import Marks, found
from interactd.store.sqlite import upkeep

pytestmark = pytest.mark.anyio


async def test_nothing_of_a_deleted_trigger_is_left(tmp_path: Path) -> None:
    marks = Marks()
    async with rig(tmp_path) as r:
        other = await r.trigger(display_name="stays")
        made = await r.trigger(
            display_name=marks.new(),
            work={"input": f"say {marks.new()}", "title": marks.new(), "labels": {"label": marks.new()}},
        )
        await r.schedules.update_trigger(made.id, {"work": {"input": f"now say {marks.new()}"}})
        await r.schedules.update_trigger(made.id, {"work": {"input": "short"}})
        assert len({line.split()[0] for line in await found(tmp_path, marks.words)}) == len(marks.words)
        await r.schedules.delete_trigger(made.id)
        assert await found(tmp_path, marks.words) == []
        assert (await r.schedules.get_trigger(other.id)).display_name == "stays"


async def test_what_a_deleted_trigger_ran_goes_with_its_session(tmp_path: Path) -> None:
    marks = Marks()
    async with rig(tmp_path) as r:
        made = await r.trigger(work={"input": f"say {marks.new()}", "title": marks.new()})
        await r.schedules.run_trigger(made.id)
        (ran,) = await r.ran(made.id, 1)
        await r.schedules.delete_trigger(made.id)
        assert ran.session_id is not None
        assert (await r.engine.transcript(ran.session_id))[1], "what it ran stays on record"
        await r.engine.delete_session(ran.session_id)
        assert await found(tmp_path, marks.words) == []


async def test_nothing_of_a_deleted_webhook_is_left(tmp_path: Path) -> None:
    marks = Marks()
    async with receiver() as there, rig(tmp_path) as r:
        there.answer = status(200, body=f"thanks {marks.new()}")
        made = await r.schedules.create_webhook(
            uri=there.url(f"/hook?token={marks.new()}"),
            allow_local=True,
            name=marks.new(),
            user_metadata={"team": marks.new()},
        )
        assert made.new_signing_secret is not None
        rotated = await r.schedules.rotate_secret(made.webhook.id)
        assert rotated.new_signing_secret is not None
        secrets = [secret.removeprefix("whsec_") for secret in (made.new_signing_secret, rotated.new_signing_secret)]
        await r.turn()
        await r.delivered(1)
        await r.schedules.update_webhook(made.webhook.id, {"uri": there.url(f"/other?token={marks.new()}")})
        words = [*marks.words, *secrets]
        assert len({line.split()[0] for line in await found(tmp_path, words)}) == len(words)
        await r.schedules.delete_webhook(made.webhook.id)
        assert await found(tmp_path, words) == []


async def test_in_a_large_file_it_is_done_when_the_store_is_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "VACUUM_AT_ONCE_BYTES", 0)
    marks = Marks()
    async with rig(tmp_path) as r:
        made = await r.trigger(work={"input": f"say {marks.new()}"})
        await r.schedules.delete_trigger(made.id)
        await r.store.upkeep.vacuum(r.store._write)  # pyright: ignore[reportPrivateUsage]
        assert await found(tmp_path, marks.words) == []
