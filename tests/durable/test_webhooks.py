"""Webhooks: told at least once, signed, tried for a day, logged; and everything a person does with them."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from durable.kit import QUICK, Got, Receiver, Rig, receiver, rig, status, until
from engine.kit import ScriptedModel, called, ended
from interactd.durable.settings import DurableSettings
from interactd.durable.webhooks.delivering import retry_in
from interactd.errors import Conflict, InteractdError, InvalidArgument, KeyRefused, NotFound
from interactd.nouns import Caller

pytestmark = pytest.mark.anyio

DAY = 86_400


async def hook(r: Rig, to: Receiver, **more: Any) -> tuple[str, str]:
    """A webhook to the receiver; returns its id and its secret."""
    made = await r.schedules.create_webhook(uri=more.pop("uri", to.url()), allow_local=True, **more)
    assert made.new_signing_secret is not None
    return made.webhook.id, made.new_signing_secret


def verified(got: Got, secret: str) -> Any:
    """The payload, if the official library takes it."""
    return Verifier(secret).verify(got.body, got.headers)


async def test_the_end_of_an_interaction_is_told_thin_signed_and_logged(tmp_path: Path) -> None:
    async with rig(tmp_path) as r, receiver() as to:
        id, secret = await hook(r, to, user_metadata={"team": "blue"})
        assert secret.startswith("whsec_")
        interaction = await r.turn("my secret plans")
        (got,) = await to.received(1)
        assert (got.method, got.path) == ("POST", "/hook")
        assert got.headers["content-type"] == "application/json"
        payload = verified(got, secret)
        assert payload == {
            "type": "interaction.completed",
            "version": "v1",
            "timestamp": payload["timestamp"],
            "data": {"id": interaction},
            "user_metadata": {"team": "blue"},
        }
        assert datetime.fromisoformat(payload["timestamp"]).tzinfo is not None
        assert b"secret plans" not in got.body
        (done,) = await r.delivered(1)
        assert got.headers["webhook-id"] == done.id
        assert (done.event, done.subject_id, done.status, done.attempts) == (
            "interaction.completed",
            interaction,
            "delivered",
            1,
        )
        (attempt,) = done.log
        assert (attempt.ok, attempt.status_code, attempt.answer, attempt.error) == (True, 200, "thanks", None)
        with pytest.raises(WebhookVerificationError):
            Verifier("whsec_" + "A" * 43 + "=").verify(got.body, got.headers)
        assert (await r.schedules.get_webhook(id)).last_success_at is not None


@pytest.mark.parametrize(
    ("answer", "event", "code"),
    [
        ("fine", "interaction.completed", None),
        ([KeyRefused("it is down")], "interaction.failed", "key_refused"),
        (ended("length"), "interaction.incomplete", "max_output_tokens"),
    ],
)
async def test_each_way_to_end_has_its_event(tmp_path: Path, answer: Any, event: str, code: str | None) -> None:
    model = ScriptedModel()
    model.script(answer)
    async with rig(tmp_path, model=model) as r, receiver() as to:
        await hook(r, to, subscribed_events=[event])
        await r.turn()
        (got,) = await to.received(1)
        assert got.json["type"] == event
        assert got.json["data"].get("error_code") == code
        assert bool(got.json["data"].get("error_message")) == bool(code)


async def test_a_question_and_a_cancel_are_told_too(tmp_path: Path) -> None:
    model = ScriptedModel()
    model.script([*called("look", {}, "c1"), *ended()])
    async with rig(tmp_path, model=model) as r, receiver() as to:
        await hook(r, to)
        session = await r.engine.create_session(model="m1", tools=[{"type": "function", "name": "look"}])
        sent = await r.engine.send_turn(session.id, "x")
        await to.received(1)
        await r.engine.cancel(sent.interaction.id)
        events = [got.json["type"] for got in await to.received(2)]
        assert events == ["interaction.requires_action", "interaction.cancelled"]


async def test_a_trigger_that_failed_is_told_of_with_how_it_stands(tmp_path: Path) -> None:
    model = ScriptedModel()
    model.script([KeyRefused("down")])
    async with rig(tmp_path, model=model) as r, receiver() as to:
        await hook(r, to, subscribed_events=["trigger.failed"])
        trigger = await r.trigger(max_consecutive_failures=1)
        run = await r.schedules.run_trigger(trigger.id)
        (got,) = await to.received(1)
        data = got.json["data"]
        assert got.json["type"] == "trigger.failed"
        assert data["id"] == trigger.id
        assert data["execution_id"] == run.id
        assert (data["trigger_status"], data["error_code"]) == ("error", "key_refused")


async def test_only_those_who_asked_are_told(tmp_path: Path) -> None:
    async with rig(tmp_path) as r, receiver() as to:
        await hook(r, to, uri=to.url("/all"))
        await hook(r, to, uri=to.url("/failed"), subscribed_events=["interaction.failed"])
        await hook(r, to, uri=to.url("/background"), background_only=True)
        off, _ = await hook(r, to, uri=to.url("/off"))
        await r.schedules.update_webhook(off, {"status": "disabled"})
        other = await r.schedules.create_webhook(uri=to.url("/other"), allow_local=True, caller=Caller(owner="other"))
        await r.turn()
        assert [got.path for got in await to.received(1)] == ["/all"]
        await r.turn(background=True)
        assert sorted(got.path for got in await to.received(3)) == ["/all", "/all", "/background"]
        await r.delivered(3)
        assert (
            await r.schedules.list_deliveries(webhook_id=other.webhook.id, caller=Caller(owner="other"))
        ).items == []


async def test_what_fails_is_tried_again_under_the_same_id_until_it_arrives(tmp_path: Path) -> None:
    async with rig(tmp_path) as r, receiver() as to:
        id, secret = await hook(r, to)
        to.script += [status(500, body="x" * 1000), status(302, "Location: http://127.0.0.1:1/elsewhere")]
        await r.turn()
        for number in (1, 2, 3):
            await to.received(number)
            (found,) = await r.delivered(1, "pending", "delivered")
            if number < 3:
                found = await until(lambda number=number: _attempts(r, number))
                assert found.status == "pending"
                assert found.next_at is not None
                r.clock.now = found.next_at
        (done,) = await r.delivered(1, "delivered")
        assert [one.status_code for one in done.log] == [500, 302, 200]
        assert done.log[0].answer == "x" * 300
        assert "redirect" in (done.log[1].error or "")
        assert {got.headers["webhook-id"] for got in to.got} == {done.id}
        assert all(
            Verifier(secret).sign(
                done.id,
                datetime.fromtimestamp(int(g.headers["webhook-timestamp"]), UTC).replace(tzinfo=None),
                g.body.decode(),
            )
            == g.headers["webhook-signature"]
            for g in to.got
        )
        assert (await r.schedules.get_webhook(id)).failing_since is None


async def _attempts(r: Rig, number: int) -> Any:
    page = await r.schedules.list_deliveries(limit=1)
    return page.items[0] if page.items and page.items[0].attempts >= number else None


async def test_the_pauses_grow_from_seconds_to_hours_with_some_chance() -> None:
    settings = DurableSettings()
    middle = [retry_in(number, settings, 0.5) for number in range(1, 12)]
    assert [round(one) for one in middle[:5]] == [5, 15, 45, 135, 405]
    assert middle[-1] == 6 * 3600
    assert sum(middle) < DAY < sum(middle) + 6 * 3600
    assert retry_in(3, settings, 0.0) == pytest.approx(36)
    assert retry_in(3, settings, 1.0) == pytest.approx(54)


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_a_receiver_that_asks_for_time_gets_it(tmp_path: Path, form: str) -> None:
    async with rig(tmp_path) as r, receiver() as to:
        await hook(r, to)
        at = datetime.fromtimestamp(time.time() + 3600, UTC)
        said = "3600" if form == "seconds" else format_datetime(at, usegmt=True)
        to.script.append(status(429, f"Retry-After: {said}"))
        await r.turn()
        found = await until(lambda: _attempts(r, 1))
        assert found.next_at == pytest.approx(r.clock.now + 3600, abs=60)


async def test_a_receiver_that_is_gone_is_told_nothing_more(tmp_path: Path) -> None:
    async with rig(tmp_path) as r, receiver(status(410)) as to:
        id, _ = await hook(r, to)
        await r.turn()
        (given_up,) = await r.delivered(1, "failed")
        assert given_up.reason == "gone"
        assert (await r.schedules.get_webhook(id)).status == "disabled"
        await r.turn()
        assert len(to.got) == 1
        assert r.schedules.holding == 0


async def test_a_day_in_vain_switches_a_webhook_off_and_enabling_it_starts_anew(tmp_path: Path) -> None:
    async with rig(tmp_path) as r, receiver(status(503)) as to:
        id, _ = await hook(r, to)
        began = r.clock.now
        await r.turn()
        number = 0
        while True:
            number += 1
            found = await until(lambda number=number: _attempts(r, number))
            if found.status != "pending":
                break
            r.clock.now = found.next_at
        assert (found.status, found.reason) == ("failed", "gave_up")
        assert r.clock.now == pytest.approx(began + DAY, abs=2)
        off = await r.schedules.get_webhook(id)
        assert off.status == "disabled_due_to_failed_deliveries"
        assert off.last_error == "the receiver answered 503"
        counted = (await r.engine.status())["schedules"]
        assert counted["failing"][0]["id"] == id
        with pytest.raises(Conflict, match="disabled"):
            await r.schedules.redeliver(found.id)
        to.answer = status(204)
        on = await r.schedules.update_webhook(id, {"status": "enabled"})
        assert (on.status, on.failing_since, on.last_error) == ("enabled", None, None)
        again = await r.schedules.redeliver(found.id)
        assert again.id == found.id
        (done,) = await r.delivered(1, "delivered")
        assert done.log[-1].status_code == 204
        assert {got.headers["webhook-id"] for got in to.got} == {found.id}


async def test_a_receiver_that_never_answers_holds_up_nobody_else(tmp_path: Path) -> None:
    settings = replace(QUICK, answer_s=0.5)
    async with rig(tmp_path, settings=settings) as r, receiver(None) as mute, receiver() as to:
        await hook(r, mute)
        await hook(r, to)
        for _ in range(8):
            await r.turn()
        await to.received(8)
        assert mute.most_open <= settings.deliveries_per_webhook
        found = await until(lambda: _logged(r, mute))
        assert found.log[0].error == "no answer within 0.5 s"


async def _logged(r: Rig, to: Receiver) -> Any:
    page = await r.schedules.list_deliveries(status="pending", limit=200)
    return next((one for one in page.items if one.log), None)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "the connection broke"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "the connection broke"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", "the connection broke"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000, "the connection broke"),
    ],
)
async def test_an_answer_that_is_none_is_a_failure_with_a_reason(tmp_path: Path, answer: bytes, said: str) -> None:
    async with rig(tmp_path) as r, receiver(answer) as to:
        await hook(r, to)
        await r.turn()
        found = await until(lambda: _attempts(r, 1))
        assert found.status == "pending"
        assert said in found.log[0].error


async def test_a_status_decides_though_its_body_never_comes(tmp_path: Path) -> None:
    async with rig(tmp_path) as r, receiver(b"HTTP/1.1 202 Accepted\r\nContent-Length: 50\r\n\r\nsome") as to:
        await hook(r, to)
        await r.turn()
        (done,) = await r.delivered(1, "delivered")
        assert done.log[0].answer == "some"


async def test_nobody_listens_and_it_is_tried_again(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        async with receiver() as gone:
            await hook(r, gone)
        await r.turn()
        found = await until(lambda: _attempts(r, 1))
        assert "cannot be reached" in found.log[0].error


async def test_a_ping_goes_out_at_once_and_says_how_it_went(tmp_path: Path) -> None:
    async with rig(tmp_path) as r, receiver() as to:
        id, secret = await hook(r, to)
        sent = await r.schedules.ping_webhook(id[:14])
        assert (sent.status, sent.event, sent.log[0].status_code) == ("delivered", "webhook.ping", 200)
        assert verified(to.got[0], secret)["type"] == "webhook.ping"
        to.answer = status(500)
        failed = await r.schedules.ping_webhook(id)
        assert (failed.status, failed.reason, failed.log[0].status_code) == ("failed", "ping", 500)
        await r.schedules.update_webhook(id, {"status": "disabled"})
        to.answer = status(410)
        assert (await r.schedules.ping_webhook(id)).status == "failed"
        assert r.schedules.holding == 0


@pytest.mark.parametrize("how", [None, "revoke_previous_secrets_immediately"])
async def test_a_secret_is_replaced_at_once_or_with_a_day_for_both(tmp_path: Path, how: Any) -> None:
    async with rig(tmp_path) as r, receiver() as to:
        id, old = await hook(r, to)
        made = await r.schedules.rotate_secret(id, revocation=how)
        new = made.new_signing_secret or ""
        assert new != old
        await r.turn()
        (got,) = await to.received(1)
        assert verified(got, new)
        if how is None:
            assert verified(got, old)
            assert len(made.webhook.signing_secrets) == 2
            assert made.webhook.signing_secrets[1]["expire_at"] == pytest.approx(r.clock.now + DAY)
        else:
            with pytest.raises(WebhookVerificationError):
                verified(got, old)
            assert len(made.webhook.signing_secrets) == 1
        r.clock.now += DAY + 1
        await r.turn()
        later = (await to.received(2))[1]
        assert len(later.headers["webhook-signature"].split(" ")) == 1
        with pytest.raises(InvalidArgument, match="revocation"):
            await r.schedules.rotate_secret(id, revocation="sometime")  # pyright: ignore[reportArgumentType]


async def test_a_rotation_that_is_made_again_leaves_valid_what_the_receiver_has(tmp_path: Path) -> None:
    async with rig(tmp_path) as r, receiver() as to:
        id, old = await hook(r, to)
        # The answer to the first one is lost with the daemon that gave it.
        await r.schedules.rotate_secret(id)
        made = await r.schedules.rotate_secret(id)
        await r.turn()
        (got,) = await to.received(1)
        assert verified(got, old)
        assert verified(got, made.new_signing_secret or "")


async def test_the_secret_is_shown_once_and_in_no_row_or_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with rig(tmp_path) as r, receiver(status(500)) as to:
        made = await r.schedules.create_webhook(uri=to.url(), allow_local=True, idempotency_key="k")
        again = await r.schedules.create_webhook(uri=to.url(), allow_local=True, idempotency_key="k")
        assert again.webhook.id == made.webhook.id
        # The answer of the first call may never have arrived.
        assert again.new_signing_secret == made.new_signing_secret
        rotated = await r.schedules.rotate_secret(made.webhook.id)
        await r.turn()
        await until(lambda: _attempts(r, 1))
        secrets = [made.new_signing_secret or "", rotated.new_signing_secret or ""]
        listed = str(await r.schedules.list_webhooks()) + str(await r.schedules.get_webhook(made.webhook.id))
        assert not any(secret in listed for secret in secrets)
        assert secrets[0][-5:] in listed
    for file in tmp_path.rglob("*"):
        if file.is_file() and not file.name.startswith("webhook-secrets"):
            data = file.read_bytes()
            assert not any(secret.encode() in data for secret in secrets), file
            assert not any(secret.removeprefix("whsec_").encode() in data for secret in secrets), file
    kept = tmp_path / "data" / "webhook-secrets.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert not any(secret in caplog.text for secret in secrets)
    assert to.url() not in caplog.text
    assert not (tmp_path / "data" / "credentials.json").exists()


async def test_deleting_takes_its_secret_and_its_deliveries_along(tmp_path: Path) -> None:
    async with rig(tmp_path) as r, receiver(status(500)) as to:
        id, secret = await hook(r, to)
        await r.turn()
        await until(lambda: _attempts(r, 1))
        receipt = await r.schedules.delete_webhook(id)
        assert receipt.counts == {"deliveries": 1, "pending": 1}
        assert secret not in (tmp_path / "data" / "webhook-secrets.json").read_text()
        assert (await r.schedules.list_deliveries()).items == []
        with pytest.raises(NotFound):
            await r.schedules.ping_webhook(id)


async def test_a_secret_whose_webhook_was_never_made_is_swept_away(tmp_path: Path) -> None:
    async with rig(tmp_path) as r, receiver() as to:
        _, secret = await hook(r, to)
    file = tmp_path / "data" / "webhook-secrets.json"
    kept = json.loads(file.read_text())
    lost = {
        **kept["credentials"][0],
        "id": "whk_lost.1",
        "secret": "whsec_bG9zdA==",
        "created_at": 1.0,
        "updated_at": 1.0,
    }
    file.write_text(json.dumps({**kept, "credentials": [*kept["credentials"], lost]}))
    async with rig(tmp_path):
        text = file.read_text()
        assert "whk_lost" not in text
        assert secret in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "expected exactly one of the three, got none"),
        ({"uri": "https://e.org", "desktop": True}, "expected exactly one of the three, got uri and desktop"),
        ({"uri": ""}, "uri: expected a URL"),
        ({"uri": "ftp://e.org/"}, "uri: only https:// and http:// can be posted to"),
        ({"uri": "https://"}, "uri: "),
        ({"uri": "https://user:pw@e.org/"}, "a user name before the host is not accepted"),
        ({"uri": "https://e.org/ a"}, "without blanks, got"),
        ({"uri": "https://e.org/\r\nX: y"}, "without blanks, got"),
        ({"uri": "https://e.org:99999/"}, "uri: "),
        ({"uri": "https://" + "e" * 3000}, "at most 2,048 characters"),
        ({"uri": "http://example.org/"}, "example.org needs https://"),
        ({"uri": "http://93.184.215.14/"}, "93.184.215.14 needs https://"),
        ({"uri": "https://e.org", "subscribed_events": ["interaction.done"]}, "'interaction.done' is not an event"),
        ({"uri": "https://e.org", "subscribed_events": []}, "expected a list of events"),
        ({"uri": "https://e.org", "subscribed_events": "x"}, "expected a list of events"),
        ({"uri": "https://e.org", "user_metadata": []}, "user_metadata: expected an object"),
        ({"uri": "https://e.org", "user_metadata": {"a": "x" * 5000}}, "user_metadata: more than 4,096 bytes"),
        ({"uri": "https://e.org", "name": "a\nb"}, "name: expected one line"),
        ({"uri": "https://e.org", "timeout_s": 5}, "timeout_s: expected nothing"),
        ({"uri": "https://e.org", "background_only": "x"}, "background_only: expected true or false"),
    ],
)
async def test_what_cannot_be_one_is_refused_in_words(tmp_path: Path, arguments: dict[str, Any], said: str) -> None:
    async with rig(tmp_path) as r:
        with pytest.raises(InteractdError) as caught:
            await r.schedules.create_webhook(**arguments)
        assert caught.value.code == "invalid_argument"
        assert said in caught.value.message
        assert (await r.schedules.list_webhooks()).items == []
        file = tmp_path / "data" / "webhook-secrets.json"
        assert not file.exists() or json.loads(file.read_text())["credentials"] == []


async def test_changing_a_webhook_checks_what_making_one_does(tmp_path: Path) -> None:
    async with rig(tmp_path) as r, receiver() as to:
        id, _ = await hook(r, to)
        changed = await r.schedules.update_webhook(
            id,
            {
                "name": "Mine",
                "subscribed_events": ["interaction.failed"],
                "uri": to.url("/new"),
                "user_metadata": {"a": 1},
            },
        )
        assert (changed.name, changed.subscribed_events, changed.target) == (
            "Mine",
            ["interaction.failed"],
            {"uri": to.url("/new")},
        )
        for changes, said in [
            ({"uri": "http://10.0.0.1/"}, "private"),
            ({"allow_local": False}, "this machine"),
            ({"status": "gone"}, "expected one of enabled, disabled"),
            ({"command": ["true"]}, "kind is http, which does not change"),
            ({"urk": 1}, "no such field of a webhook"),
        ]:
            with pytest.raises(InteractdError, match=said):
                await r.schedules.update_webhook(id, changes)
        assert (await r.schedules.get_webhook(id)) == changed


async def test_one_for_a_single_turn_is_told_of_that_one_however_late_it_comes(tmp_path: Path) -> None:
    async with rig(tmp_path) as r, receiver() as to:
        ended = await r.turn()
        await r.turn()
        late = await r.schedules.create_webhook(uri=to.url("/late"), allow_local=True, interaction_id=ended[:25])
        (got,) = await to.received(1)
        assert (got.path, got.json["data"]["id"]) == ("/late", ended)
        assert verified(got, late.new_signing_secret or "")["type"] == "interaction.completed"
        gate = r.model.gate = asyncio.Event()
        one, other = await r.turn_started(), await r.turn_started()
        early = await r.schedules.create_webhook(
            uri=to.url("/early"), allow_local=True, interaction_id=one, user_metadata={"n": 1}
        )
        gate.set()
        await r.engine.wait(other, 10)
        assert [got.path for got in await to.received(2)] == ["/late", "/early"]
        assert to.got[1].json["data"]["id"] == one
        assert to.got[1].json["user_metadata"] == {"n": 1}
        assert (await r.schedules.list_webhooks()).items == []
        assert (await r.schedules.get_webhook(early.webhook.id)).interaction_id == one
        assert (await r.engine.status())["schedules"]["webhooks"] == 0
        with pytest.raises(NotFound):
            await r.schedules.create_webhook(uri="https://e.org", interaction_id="int_" + "0" * 26)
        with pytest.raises(NotFound):
            await r.schedules.create_webhook(uri="https://e.org", interaction_id=ended, caller=Caller(owner="other"))
        await r.delivered(2)
        assert await r.store.schedules.prune(r.clock.now + 1) >= 4
        assert await r.store.schedules.secret_refs() == set()
