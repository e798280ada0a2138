"""Where webhooks may not go: inside, whatever the name says, and whatever it says the second time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from durable.kit import QUICK, receiver, rig, status, until
from interactd.durable.webhooks.address import networks, place_of
from interactd.durable.webhooks.sending import Sender
from interactd.errors import NetworkRefused
from interactd.nouns import Json
from sandbox.egress.parts import TestAuthority

pytestmark = pytest.mark.anyio


class Names:
    """A name server that says something else every time it is asked."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def __call__(self, name: str) -> Sequence[str]:
        del name
        self.asked += 1
        return self.answers[min(self.asked, len(self.answers)) - 1]


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1.2.3",
        "localhost",
        "sub.localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "168.63.129.16",
        "[fd00::1]",
        "[fe80::1]",
        "[64:ff9b::7f00:1]",
        "224.0.0.1",
    ],
)
async def test_an_address_inside_is_refused_when_the_webhook_is_made(tmp_path: Path, host: str) -> None:
    async with rig(tmp_path) as r:
        with pytest.raises(NetworkRefused) as caught:
            await r.schedules.create_webhook(uri=f"https://{host}/hook")
        assert caught.value.repair
        assert (await r.schedules.list_webhooks()).items == []


@pytest.mark.parametrize("host", ["0x7f.1", "2130706433", "127.1", "017700000001"])
async def test_an_address_in_disguise_is_no_host(tmp_path: Path, host: str) -> None:
    async with rig(tmp_path) as r:
        with pytest.raises(Exception, match="uri: "):
            await r.schedules.create_webhook(uri=f"https://{host}/hook", allow_local=True)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.0.0.1", "169.254.169.254", "::ffff:10.0.0.1"])
@pytest.mark.parametrize("allow_local", [True, False])
async def test_a_name_that_resolves_to_the_inside_is_not_dialled(
    tmp_path: Path, address: str, allow_local: bool
) -> None:
    names = Names([address])
    async with rig(tmp_path, sender=Sender(resolver=names)) as r, receiver() as to:
        made = await r.schedules.create_webhook(uri=f"https://evil.example:{to.port}/", allow_local=allow_local)
        sent = await r.schedules.ping_webhook(made.webhook.id)
        assert sent.status == "failed"
        assert "public addresses only" in (sent.log[0].error or "")
        assert to.got == []
        assert to.most_open == 0


async def test_one_bad_address_among_good_ones_is_enough(tmp_path: Path) -> None:
    names = Names(["93.184.215.14", "127.0.0.1"])
    async with rig(tmp_path, sender=Sender(resolver=names)) as r, receiver() as to:
        made = await r.schedules.create_webhook(uri=f"https://evil.example:{to.port}/")
        assert "loopback" in ((await r.schedules.ping_webhook(made.webhook.id)).log[0].error or "")


async def test_a_name_is_asked_once_an_attempt_and_only_that_answer_is_dialled(tmp_path: Path) -> None:
    # Good at the first look, inside at the second: there is no second look within an attempt.
    names = Names(["192.0.2.1"], ["127.0.0.1"])
    sender = Sender(networks(["192.0.2.0/24"]), resolver=names, timeout_s=0.5)
    async with rig(tmp_path, sender=sender) as r, receiver() as to:
        made = await r.schedules.create_webhook(uri=f"http://evil.example:{to.port}/")
        first = await r.schedules.ping_webhook(made.webhook.id)
        assert names.asked == 1
        assert "public addresses only" not in (first.log[0].error or "")
        second = await r.schedules.ping_webhook(made.webhook.id)
        assert names.asked == 2
        assert "loopback" in (second.log[0].error or "")
        assert to.got == []


async def test_plain_http_does_not_leave_for_the_public(tmp_path: Path) -> None:
    sender = Sender(networks(["10.0.0.0/8"]), resolver=Names(["93.184.215.14"]))
    async with rig(tmp_path, sender=sender) as r:
        made = await r.schedules.create_webhook(uri="http://nas.example/")
        assert "http://" in ((await r.schedules.ping_webhook(made.webhook.id)).log[0].error or "")


async def test_a_redirect_to_the_inside_is_not_followed(tmp_path: Path) -> None:
    async with rig(tmp_path) as r, receiver() as inside, receiver() as to:
        to.answer = status(307, f"Location: {inside.url()}")
        made = await r.schedules.create_webhook(uri=to.url(), allow_local=True)
        sent = await r.schedules.ping_webhook(made.webhook.id)
        assert (sent.log[0].status_code, sent.status) == (307, "failed")
        assert inside.got == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_this_machine_is_reached_where_that_was_said(tmp_path: Path, host: str) -> None:
    async with rig(tmp_path) as r, receiver() as to:
        made = await r.schedules.create_webhook(uri=to.url(host=host), allow_local=True)
        assert (await r.schedules.ping_webhook(made.webhook.id)).status == "delivered"


async def test_a_listed_network_is_reached_by_name_and_address(tmp_path: Path) -> None:
    sender = Sender(networks(["127.0.0.0/8"]), resolver=Names(["127.0.0.1"]))
    async with rig(tmp_path, sender=sender) as r, receiver() as to:
        for host in ("nas.example", "127.0.0.1"):
            made = await r.schedules.create_webhook(uri=to.url(host=host), allow_local=host[0] == "1")
            assert (await r.schedules.ping_webhook(made.webhook.id)).status == "delivered"


def test_a_path_and_a_query_are_sent_as_they_are_meant() -> None:
    place = place_of("https://Example.ORG/a b".replace(" ", "%20") + "?q=ä&x=1#frag", allow_local=False, allowed=())
    assert place.origin.host == "example.org"
    assert place.target == "/a%20b?q=%C3%A4&x=1"


async def test_a_hidden_header_cannot_be_smuggled_through_the_payload(tmp_path: Path) -> None:
    async with rig(tmp_path) as r, receiver() as to:
        metadata: Json = {"a": "x\r\nX-Evil: 1\r\n\r\n"}
        await r.schedules.create_webhook(uri=to.url(), allow_local=True, user_metadata=metadata)
        await r.turn()
        (got,) = await to.received(1)
        assert "x-evil" not in got.headers
        assert got.json["user_metadata"] == metadata


async def test_settings_of_the_guard_come_from_the_configuration(tmp_path: Path) -> None:
    from dataclasses import replace

    async with rig(tmp_path, settings=replace(QUICK, allow=("127.0.0.1",))) as r, receiver() as to:
        made = await r.schedules.create_webhook(uri=to.url(host="127.0.0.1"), allow_local=True)
        await r.turn()
        await until(lambda: r.delivered(1))
        assert (await r.schedules.get_webhook(made.webhook.id)).last_success_at


async def test_a_receiver_over_tls_is_known_by_its_certificate(tmp_path: Path) -> None:
    authority = TestAuthority.make(tmp_path)
    async with receiver(tls=authority.server("hooks.example")) as to:
        sender = Sender(networks(["127.0.0.0/8"]), resolver=Names(["127.0.0.1"]), upstream=authority.trusting())
        async with rig(tmp_path / "home", sender=sender) as r:
            good = await r.schedules.create_webhook(uri=f"https://hooks.example:{to.port}/x")
            sent = await r.schedules.ping_webhook(good.webhook.id)
            assert (sent.status, sent.log[0].answer) == ("delivered", "thanks")
            assert to.got[0].headers["host"] == f"hooks.example:{to.port}"
            other = await r.schedules.create_webhook(uri=f"https://other.example:{to.port}/x")
            refused = await r.schedules.ping_webhook(other.webhook.id)
            assert "certificate is not good" in (refused.log[0].error or "")
            assert len(to.got) == 1
