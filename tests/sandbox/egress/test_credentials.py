"""A secret is on the wire to those who are trusted with it, and nowhere that a sandbox can look."""

from __future__ import annotations

import base64
import gzip
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from interactd.nouns import Json
from interactd.sandbox.egress.policy.rules import Policy
from sandbox.egress.parts import Keep, Net, Respond, Route, Seen, Server, reply, until

pytestmark = pytest.mark.anyio

SECRET = "ghp_S3cret+Value/with=signs"
GITHUB = {"id": "github", "type": "bearer_token", "token": SECRET}


def variable(*places: str, domains: tuple[str, ...] = ("api.test",)) -> Keep:
    return Keep(
        {
            "id": "key",
            "type": "environment_variable",
            "value": SECRET,
            "injection_location": list(places),
            "trusted_domains": list(domains),
        }
    )


def everything(route: Route) -> str:
    """All that a sandbox or a log could see of a run."""
    ca = route.proxy.ca_file.read_text() if route.proxy.ca_file else ""
    return f"{route.log} {route.policy.env} {route.policy!r} {route.proxy!r} {vars(route.proxy)} {ca}"


async def secure(net: Net, respond: Respond | None = None) -> Server:
    return await net.server(respond, tls=["api.test", "other.test"])


def allow(server: Server, *more: str | Json, **extra: Any) -> list[str | Json]:
    return [{"domain": f"api.test:{server.port}", **extra}, f"127.0.0.1:{server.port}", *more]


async def test_a_rules_credential_is_added_outside_over_tls_that_the_proxy_ends(net: Net) -> None:
    server = await secure(net)
    route = await net.proxy(allow(server, credential="github"), keep=Keep(GITHUB))
    answer = await route.https(f"https://api.test:{server.port}/user")
    assert answer.status == 200
    assert server.seen[0].header("authorization") == f"Bearer {SECRET}"
    assert server.seen[0].header("host") == f"api.test:{server.port}"
    assert SECRET not in everything(route)
    assert [(e["method"], e["verdict"]) for e in route.log] == [("CONNECT", "allowed"), ("GET", "allowed")]


async def test_a_rules_credential_replaces_what_the_sandbox_sent(net: Net) -> None:
    server = await secure(net)
    route = await net.proxy(allow(server, credential="github"), keep=Keep(GITHUB))
    await route.https(f"https://api.test:{server.port}/", Authorization="Bearer of-the-sandbox")
    assert [v for k, v in server.seen[0].headers if k.lower() == "authorization"] == [f"Bearer {SECRET}"]


async def test_header_name_and_prefix_are_the_credentials(net: Net) -> None:
    server = await secure(net)
    keep = Keep({**GITHUB, "header_name": "X-Api-Key", "prefix": ""})
    route = await net.proxy(allow(server, credential="github"), keep=keep)
    await route.https(f"https://api.test:{server.port}/")
    assert server.seen[0].header("x-api-key") == SECRET
    assert server.seen[0].header("authorization") is None


async def test_a_transform_adds_headers_after_the_credential_and_wins(net: Net) -> None:
    server = await secure(net)
    transform = [{"X-Team": "blue"}, {"Authorization": "token other-secret"}]
    route = await net.proxy(allow(server, credential="github", transform=transform), keep=Keep(GITHUB))
    await route.https(f"https://api.test:{server.port}/")
    assert server.seen[0].header("x-team") == "blue"
    assert server.seen[0].header("authorization") == "token other-secret"
    assert "other-secret" not in everything(route)


async def test_a_placeholder_in_a_header_becomes_the_secret_on_the_wire_only(net: Net) -> None:
    server = await secure(net)
    route = await net.proxy(allow(server), {"TOKEN": {"credential": "key"}, "PLAIN": "x"}, variable("header"))
    placeholder = route.policy.env["TOKEN"]
    assert placeholder.startswith("interactd-credential-key-")
    assert route.policy.env["PLAIN"] == "x"
    await route.https(f"https://api.test:{server.port}/", X_Key=f"a {placeholder} b")
    assert server.seen[0].header("x-key") == f"a {SECRET} b"
    assert SECRET not in everything(route)


async def test_placeholders_are_new_with_every_run(net: Net) -> None:
    keep = variable("header")
    made = [Policy.from_environment(None, {"T": {"credential": "key"}}, keep).env["T"] for _ in range(3)]
    assert len(set(made)) == 3


async def test_a_placeholder_as_a_basic_password_is_replaced_as_git_needs_it(net: Net) -> None:
    server = await secure(net)
    route = await net.proxy(allow(server), {"TOKEN": {"credential": "key"}}, variable("header"))
    coded = base64.b64encode(f"x-access-token:{route.policy.env['TOKEN']}".encode()).decode()
    await route.https(f"https://api.test:{server.port}/", Authorization=f"Basic {coded}")
    sent = server.seen[0].header("authorization")
    assert sent is not None
    assert base64.b64decode(sent.removeprefix("Basic ")).decode() == f"x-access-token:{SECRET}"


async def test_in_a_query_and_a_body_the_secret_is_escaped_as_they_ask(net: Net) -> None:
    server = await secure(net)
    route = await net.proxy(allow(server), {"TOKEN": {"credential": "key"}}, variable("query", "body"))
    placeholder, url = route.policy.env["TOKEN"], f"https://api.test:{server.port}/"
    await route.https(f"{url}?a=1&key={placeholder}&b=2")
    await route.https(
        url, method="POST", body=f"key={placeholder}".encode(), Content_Type="application/x-www-form-urlencoded"
    )
    await route.https(
        url, method="POST", body=json.dumps({"key": placeholder}).encode(), Content_Type="application/json"
    )
    assert server.seen[0].target == "/?a=1&key=ghp_S3cret%2BValue%2Fwith%3Dsigns&b=2"
    assert server.seen[1].body == b"key=ghp_S3cret%2BValue%2Fwith%3Dsigns"
    assert json.loads(server.seen[2].body) == {"key": SECRET}


@pytest.mark.parametrize("place", ["query", "path", "header"])
async def test_a_placeholder_in_a_place_that_is_not_its_own_is_refused(net: Net, place: str) -> None:
    server = await secure(net)
    keep = variable("body" if place == "header" else "header")
    route = await net.proxy(allow(server), {"TOKEN": {"credential": "key"}}, keep)
    placeholder = route.policy.env["TOKEN"]
    path = {"query": f"?k={placeholder}", "path": f"{placeholder}/x", "header": ""}[place]
    headers: dict[str, Any] = {"X_Key": placeholder} if place == "header" else {}
    answer = await route.https(f"https://api.test:{server.port}/{path}", **headers)
    assert answer.status == 403
    assert "'key'" in answer.text
    assert server.seen == []
    assert route.log[-1]["verdict"] == "denied"


async def test_a_placeholder_towards_another_host_is_refused_and_logged(net: Net) -> None:
    server, other = await secure(net), await net.server()
    rules = allow(server, f"other.test:{other.port}", f"127.0.0.1:{other.port}")
    route = await net.proxy(rules, {"TOKEN": {"credential": "key"}}, variable("header"))
    answer = await route.get(f"http://other.test:{other.port}/", X_Key=route.policy.env["TOKEN"])
    assert answer.status == 403
    assert "not trusted to go to other.test" in answer.text
    assert other.seen == []
    assert route.log[-1]["verdict"] == "denied"


async def test_a_placeholder_kept_from_an_earlier_run_is_told_from_a_wrong_secret(net: Net) -> None:
    server = await secure(net)
    old = Policy.from_environment(None, {"TOKEN": {"credential": "key"}}, variable("header")).env["TOKEN"]
    route = await net.proxy(allow(server), {"TOKEN": {"credential": "key"}}, variable("header"))
    answer = await route.https(f"https://api.test:{server.port}/", X_Key=old)
    assert answer.status == 403
    assert "from an earlier run" in answer.text
    assert server.seen == []


async def test_only_the_trusted_hosts_tunnel_is_opened(net: Net) -> None:
    server = await secure(net)
    route = await net.proxy(
        allow(server, f"other.test:{server.port}"), {"TOKEN": {"credential": "key"}}, variable("header")
    )
    # The other tunnel shows the server's own certificate, which the test's roots know and the sandbox's do not.
    other = await route.https(f"https://other.test:{server.port}/", roots=net.roots.trusting())
    assert other.status == 200
    with pytest.raises(OSError, match="certificate"):
        await route.https(f"https://api.test:{server.port}/", roots=net.roots.trusting())
    assert (await route.https(f"https://api.test:{server.port}/")).status == 200


async def test_the_authority_is_another_one_for_every_run(net: Net) -> None:
    server = await secure(net)
    first = await net.proxy(allow(server, credential="github"), keep=Keep(GITHUB))
    old = first.trusting()
    second = await net.proxy(allow(server, credential="github"), keep=Keep(GITHUB))
    with pytest.raises(OSError, match="certificate"):
        await second.https(f"https://api.test:{server.port}/", roots=old)


async def test_the_bundle_has_this_machines_roots_and_no_key(net: Net) -> None:
    route = await net.proxy(["*", {"domain": "api.test", "credential": "github"}], keep=Keep(GITHUB))
    assert route.proxy.ca_file is not None
    text = route.proxy.ca_file.read_text()
    assert "PRIVATE" not in text
    assert text.count("BEGIN CERTIFICATE") >= 1
    assert route.trusting().cert_store_stats()["x509_ca"] == text.count("BEGIN CERTIFICATE")


async def test_a_server_whose_certificate_is_not_good_gets_no_secret(net: Net) -> None:
    server = await net.server(tls=["somebody-else.test"])
    route = await net.proxy(allow(server, credential="github"), keep=Keep(GITHUB))
    answer = await route.https(f"https://api.test:{server.port}/")
    assert answer.status == 502
    assert "certificate of api.test is not good" in answer.text
    assert server.seen == []


async def test_over_plain_http_a_secret_goes_only_where_the_address_itself_was_listed(net: Net) -> None:
    server = await net.server()
    keep = Keep({**GITHUB, "trusted_domains": ["127.0.0.1", "public.test"]})
    rules: list[str | Json] = [
        {"domain": f"127.0.0.1:{server.port}", "credential": "github"},
        {"domain": "public.test", "credential": "github"},
    ]
    net.names["public.test"] = [["93.184.216.34"]]
    route = await net.proxy(rules, keep=keep)
    assert (await route.get(f"http://127.0.0.1:{server.port}/")).status == 200
    assert server.seen[0].header("authorization") == f"Bearer {SECRET}"
    public = await route.get("http://public.test/")
    assert public.status == 403
    assert "https only" in public.text


@pytest.mark.parametrize("split", [1, 7, 1000])
async def test_a_server_that_echoes_the_secret_does_not_show_it_to_the_sandbox(net: Net, split: int) -> None:
    def echo(seen: Seen) -> bytes:
        body = b"you sent " + (seen.header("authorization") or "").encode() + b" and no more"
        parts = [body[i : i + split] for i in range(0, len(body), split)]
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in parts)
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Echo: " + SECRET.encode() + b"\r\n\r\n"
        return head + chunks + b"0\r\n\r\n"

    server = await secure(net, respond=echo)
    route = await net.proxy(allow(server, credential="github"), keep=Keep(GITHUB))
    answer = await route.https(f"https://api.test:{server.port}/")
    assert answer.text == f"you sent Bearer {'*' * len(SECRET)} and no more"
    assert answer.headers["X-Echo"] == "*" * len(SECRET)


async def test_an_echo_with_a_length_keeps_it_and_a_packed_one_is_read_too(net: Net) -> None:
    def echo(seen: Seen) -> bytes:
        body = (seen.header("authorization") or "").encode()
        if seen.target == "/packed":
            return reply(gzip.compress(body), "Content-Encoding: gzip")
        return reply(body, "Content-Encoding: br") if seen.target == "/odd" else reply(body)

    server = await secure(net, respond=echo)
    route = await net.proxy(allow(server, credential="github"), keep=Keep(GITHUB))
    url, hidden = f"https://api.test:{server.port}", f"Bearer {'*' * len(SECRET)}"
    plain = await route.https(f"{url}/plain")
    assert (plain.text, plain.headers["Content-Length"]) == (hidden, str(len(hidden)))
    assert (await route.https(f"{url}/packed", Accept_Encoding="gzip")).text == hidden
    assert (await route.https(f"{url}/odd")).status == 502
    assert server.seen[1].header("accept-encoding") == "identity"


@pytest.mark.parametrize("coded", ["percent", "base64", "json"])
async def test_common_codings_of_an_echoed_secret_are_masked(net: Net, coded: str) -> None:
    from urllib.parse import quote

    forms = {"percent": quote(SECRET, safe=""), "base64": base64.b64encode(SECRET.encode()).decode(), "json": SECRET}
    server = await secure(net, respond=lambda seen: reply(f"<{forms[coded]}>".encode()))
    route = await net.proxy(allow(server, credential="github"), keep=Keep(GITHUB))
    assert forms[coded].rstrip("=") not in (await route.https(f"https://api.test:{server.port}/")).text


@pytest.mark.parametrize(
    "message",
    [
        "GET / HTTP/1.1\r\nHost: other.test\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET http://other.test/ HTTP/1.1\r\nHost: api.test:{port}\r\n\r\n",
        "CONNECT other.test:443 HTTP/1.1\r\nHost: api.test:{port}\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: api.test:{port}\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "TRACE / HTTP/1.1\r\nHost: api.test:{port}\r\n\r\n",
    ],
)
async def test_inside_an_ended_tunnel_only_clean_requests_to_its_own_host_pass(net: Net, message: str) -> None:
    import asyncio
    import socket

    server = await secure(net)
    route = await net.proxy(allow(server, credential="github"), keep=Keep(GITHUB))
    context = route.trusting()

    def ask() -> bytes:
        with socket.create_connection(("127.0.0.1", route.port), timeout=10) as sock:
            sock.sendall(f"CONNECT api.test:{server.port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert b" 200 " in sock.recv(4096)
            with context.wrap_socket(sock, server_hostname="api.test") as tls:
                tls.sendall(message.replace("{port}", str(server.port)).encode())
                return tls.recv(4096)

    assert (await asyncio.to_thread(ask)).startswith(b"HTTP/1.1 403 ")
    assert server.seen == []


async def test_uploads_go_through_an_ended_tunnel_in_chunks_and_whole(net: Net) -> None:
    server = await secure(net, respond=lambda seen: reply(str(len(seen.body)).encode()))
    route = await net.proxy(allow(server, credential="github"), keep=Keep(GITHUB))
    assert (
        await route.https(f"https://api.test:{server.port}/", method="POST", body=b"x" * 5_000_000)
    ).text == "5000000"


async def test_no_log_line_and_no_error_has_the_secret(
    net: Net, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    server = await secure(net, respond=lambda seen: b"garbage " + SECRET.encode() + b"\r\n\r\n")
    route = await net.proxy(allow(server, credential="github"), {"T": {"credential": "github"}}, keep=Keep(GITHUB))
    answer = await route.https(f"https://api.test:{server.port}/", X_Key=route.policy.env["T"])
    assert answer.status == 502
    await until(lambda: all(entry["ms"] is not None for entry in route.log))
    assert SECRET not in answer.text + answer.reason + str(answer.headers)
    assert SECRET not in caplog.text
    assert SECRET not in everything(route)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
