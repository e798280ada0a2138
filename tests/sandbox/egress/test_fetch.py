"""Pages for agents without a sandbox: the same policy, at every hop."""

from __future__ import annotations

import asyncio
import gzip

import pytest

from interactd.errors import InteractdError, InvalidArgument, NetworkRefused, ProviderTimeout, ProviderUnavailable
from interactd.nouns import Json
from interactd.sandbox.egress.log import RequestLog
from interactd.sandbox.egress.pages.fetch import Fetched, fetch
from interactd.sandbox.egress.pages.text import html_to_text
from interactd.sandbox.egress.policy.rules import Policy
from sandbox.egress.parts import Keep, Net, Seen, Server, reply

pytestmark = pytest.mark.anyio
SECRET = "ghp_S3cretValue"


async def get(net: Net, url: str, *rules: str | Json, keep: Keep | None = None, **options: float) -> Fetched:
    policy = Policy.from_environment({"allowlist": list(rules)}, {}, keep)
    most = int(options.pop("max_bytes", 10_000_000))
    return await fetch(
        url, policy, most, options.get("timeout_s", 10), resolver=net.resolve, upstream=net.roots.trusting()
    )


def listed(server: Server, name: str = "a.test") -> tuple[str, str]:
    return f"{name}:{server.port}", f"127.0.0.1:{server.port}"


async def test_a_page_is_fetched_and_read_as_text(net: Net) -> None:
    page = b"<title>T</title><body><h1>Hi</h1><p>See <a href='/more'>more</a></p><script>x()</script>"
    server = await net.server(lambda seen: reply(page, "Content-Type: text/html"))
    got = await get(net, f"http://a.test:{server.port}/p?q=ü#frag", *listed(server))
    assert (got.status, got.url, got.content_type) == (200, f"http://a.test:{server.port}/p?q=ü", "text/html")
    assert got.text == f"T\n\n# Hi\n\nSee [more](http://a.test:{server.port}/more)"
    assert server.seen[0].target == "/p?q=%C3%BC"


async def test_https_is_verified(net: Net) -> None:
    good, bad = await net.server(tls=["a.test"]), await net.server(tls=["other.test"])
    assert (await get(net, f"https://a.test:{good.port}/", *listed(good))).status == 200
    with pytest.raises(ProviderUnavailable, match=r"certificate of a\.test"):
        await get(net, f"https://a.test:{bad.port}/", *listed(bad))


async def test_a_host_that_is_not_listed_is_refused_with_what_would_allow_it(net: Net) -> None:
    with pytest.raises(NetworkRefused) as caught:
        await get(net, "https://b.test/", "a.test")
    assert '{"domain": "b.test"}' in (caught.value.repair or "")


@pytest.mark.parametrize(
    "to", ["http://b.test/", "//b.test/", "http://127.0.0.1/", "http://2130706433/", "file:///etc/passwd"]
)
async def test_a_redirect_is_judged_like_the_first_address(net: Net, to: str) -> None:
    server = await net.server(lambda seen: reply(b"", f"Location: {to}", status="302 Found"))
    with pytest.raises((NetworkRefused, InvalidArgument)):
        await get(net, f"http://a.test:{server.port}/", *listed(server))
    assert len(server.seen) == 1


async def test_a_redirect_within_the_policy_is_followed_and_a_circle_is_given_up(net: Net) -> None:
    def respond(seen: Seen) -> bytes:
        if seen.target == "/end":
            return reply(b"there", "Content-Type: text/plain")
        return reply(b"", f"Location: {'/end' if seen.target == '/start' else '/round'}", status="301 Moved")

    server = await net.server(respond)
    got = await get(net, f"http://a.test:{server.port}/start", *listed(server))
    assert (got.text, got.url) == ("there", f"http://a.test:{server.port}/end")
    with pytest.raises(ProviderUnavailable, match="more than 10 redirects"):
        await get(net, f"http://a.test:{server.port}/round", *listed(server))


async def test_a_rebound_name_is_refused(net: Net) -> None:
    net.names["a.test"] = [["169.254.169.254"]]
    with pytest.raises(NetworkRefused, match="resolves to an address"):
        await get(net, "http://a.test/latest/meta-data/", "a.test")


async def test_a_large_page_is_cut_and_a_bomb_unpacks_no_further_than_asked(net: Net) -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    server = await net.server(
        lambda seen: reply(bomb, "Content-Encoding: gzip") if seen.target == "/bomb" else reply(b"x" * 5000)
    )
    url = f"http://a.test:{server.port}"
    plain = await get(net, f"{url}/", *listed(server), max_bytes=1000)
    packed = await get(net, f"{url}/bomb", *listed(server), max_bytes=1000)
    assert (len(plain.body), plain.truncated, len(packed.body), packed.truncated) == (1000, True, 1000, True)
    assert packed.text is None


async def test_a_rules_credential_goes_along_and_is_masked_in_what_comes(net: Net) -> None:
    server = await net.server(lambda seen: reply((seen.header("authorization") or "").encode()), tls=["a.test"])
    keep = Keep({"id": "github", "type": "bearer_token", "token": SECRET})
    rule, address = listed(server)
    got = await get(net, f"https://a.test:{server.port}/", {"domain": rule, "credential": "github"}, address, keep=keep)
    assert got.text == f"Bearer {'*' * len(SECRET)}"
    assert server.seen[0].header("authorization") == f"Bearer {SECRET}"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a.test",
        "ftp://a.test/",
        "file:///etc/passwd",
        "http://u:p@a.test/",
        "http:///x",
        "http://[::1/",
        "http://a b/",
    ],
)
async def test_what_cannot_be_fetched_is_an_invalid_argument(net: Net, url: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await get(net, url, "*")
    assert caught.value.fields["field"] == "url"


async def test_a_slow_server_and_a_broken_one_are_told_apart(net: Net) -> None:
    waiting = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await waiting.wait()
        writer.close()

    slow = await asyncio.start_server(silent, "127.0.0.1", 0)
    broken = await net.server(lambda seen: b"what is this\r\n\r\n")
    port = slow.sockets[0].getsockname()[1]
    with pytest.raises(ProviderTimeout):
        await get(net, f"http://a.test:{port}/", f"a.test:{port}", f"127.0.0.1:{port}", timeout_s=0.1)
    with pytest.raises(ProviderUnavailable):
        await get(net, f"http://a.test:{broken.port}/", *listed(broken))
    waiting.set()
    slow.close()


async def test_each_hop_is_logged(net: Net) -> None:
    log = RequestLog()
    policy = Policy.from_environment({"allowlist": ["a.test"]}, {}, None)
    with pytest.raises(InteractdError):
        await fetch("http://b.test/", policy, log=log, resolver=net.resolve)
    assert [(entry["host"], entry["verdict"]) for entry in log.as_list()] == [("b.test", "denied")]


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("a&amp;b &lt;c&gt;", "a&b <c>"),
        ("<ul><li>one<li>two</ul>after", "- one\n- two\n\nafter"),
        ("<ol><li>one</li><li>two</li></ol>", "1. one\n2. two"),
        ("<table><tr><th>a<th>b<tr><td>1<td>2</table>", "a | b\n1 | 2"),
        ("<pre>x\n  y</pre>", "```\nx\n  y\n```"),
        ("<p>one<p>two", "one\n\ntwo"),
        ("<div hidden>no<p>no</div>yes", "yes"),
        ("<li hidden>no<li>yes", "- no\n- yes"),
        ("<a href='javascript:x()'>t</a>", "t"),
        ("<a href='#x'>t</a>", "t"),
        ("<a href='b'>t</a>", "[t](http://e.test/b)"),
        ("<img alt='a cat' src=x>", "[image: a cat]"),
        ("<style>x</style><script>y</script>z", "z"),
        ("</div></div>x</a></ul>", "x"),
        ("<", "<"),
        ("", ""),
    ],
)
def test_html_becomes_text(html: str, text: str) -> None:
    assert html_to_text(html, "http://e.test/") == text


def test_deep_and_broken_pages_are_read_all_the_same() -> None:
    assert html_to_text("<div>" * 50_000 + "deep") == "deep"
    assert html_to_text("<svg>" * 50_000 + "</svg>" * 50_000 + "out").endswith("out")
    assert html_to_text("<ul>" * 200 + "<li>x") != ""
