"""Who is let in over HTTP."""

from __future__ import annotations

import asyncio
import json
import logging
import socket as sockets
from collections.abc import AsyncGenerator

import pytest

from faces.http_kit import ACCEPT, bearer, opened
from faces.kit import PATIENCE_S, Daemon, Json, hello
from interactd._version import __version__
from interactd.errors import ConfigError, Conflict
from interactd.faces.http.app import Limits
from interactd.faces.http.guard import Rules, is_loopback
from interactd.faces.http.serving import HttpFace
from interactd.faces.mcp.server import build_server

pytestmark = pytest.mark.anyio

INITIALIZE: Json = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello("2025-06-18")}


async def test_the_token_opens_the_door(daemon: Daemon) -> None:
    async with opened(daemon) as (_, client):
        answer = await client.post("/mcp", json=INITIALIZE, headers={**ACCEPT, **bearer(daemon)})
        assert answer.status_code == 200
        assert answer.headers["mcp-session-id"]


async def test_without_the_right_token_there_is_a_401_that_says_how_to_get_it(daemon: Daemon) -> None:
    wrong = [None, "", "Bearer", "Bearer wrong", "Bearer ü", "Basic {token}", "{token}", "Bearer {token}x"]
    async with opened(daemon) as (_, client):
        token = daemon.paths.token_file.read_text().strip()
        for path in ("/mcp", "/mcp/", "/sse", "/messages/?session_id=1", "/", "/anything"):
            for given in wrong:
                headers = [] if given is None else [(b"authorization", given.format(token=token).encode("latin-1"))]
                answer = await client.post(path, json=INITIALIZE, headers=headers)
                assert answer.status_code == 401, (path, given)
                assert answer.headers["www-authenticate"].startswith("Bearer ")
                error = answer.json()["error"]
                assert error["code"] == "unauthorized"
                assert "interactd token" in error["repair"]


async def test_health_needs_no_token_and_tells_nothing(daemon: Daemon) -> None:
    async with opened(daemon) as (_, client):
        answer = await client.get("/health")
        assert answer.json() == {"ok": True, "version": __version__}


async def test_looking_for_oauth_finds_none(daemon: Daemon) -> None:
    async with opened(daemon) as (_, client):
        assert (await client.get("/.well-known/oauth-protected-resource")).status_code == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.0.0.1", "localhost@x"]
)
async def test_a_foreign_host_header_is_refused_before_anything_else(daemon: Daemon, host: str) -> None:
    async with opened(daemon) as (_, client):
        for path in ("/mcp", "/sse", "/health"):
            answer = await client.get(path, headers={"host": host, **bearer(daemon)})
            assert answer.status_code == 421
            assert answer.json()["error"]["code"] == "host_refused"


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "https://localhost.evil.example", "null", "file://", "", "http://["]
)
async def test_a_foreign_page_is_refused(daemon: Daemon, origin: str) -> None:
    async with opened(daemon) as (_, client):
        answer = await client.post("/mcp", json=INITIALIZE, headers={"origin": origin, **ACCEPT, **bearer(daemon)})
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers


async def test_a_page_on_this_machine_and_one_that_was_allowed_may_ask(daemon: Daemon) -> None:
    async with opened(daemon, allowed_origins=["https://App.Example/"]) as (_, client):
        for origin in ("http://localhost:6274", "http://127.0.0.1", "https://app.example"):
            preflight = await client.options(
                "/mcp", headers={"origin": origin, "access-control-request-method": "POST"}
            )
            assert preflight.status_code == 204
            assert preflight.headers["access-control-allow-origin"] == origin
            assert "authorization" in preflight.headers["access-control-allow-headers"]
            answer = await client.post("/mcp", json=INITIALIZE, headers={"origin": origin, **ACCEPT, **bearer(daemon)})
            assert answer.status_code == 200
            assert "mcp-session-id" in answer.headers["access-control-expose-headers"]


async def test_a_host_that_was_allowed_may_be_used(daemon: Daemon) -> None:
    async with opened(daemon, allowed_hosts=["box.lan"]) as (_, client):
        for host in ("box.lan", "BOX.lan:8642"):
            assert (await client.get("/health", headers={"host": host})).status_code == 200


async def test_nothing_listens_beyond_loopback_without_a_token(daemon: Daemon) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        with pytest.raises(ConfigError) as caught:
            await daemon.faces.http(host, 0, token=False)
        assert "without a token" in str(caught.value)
    assert daemon.faces.listening == []


async def test_with_a_token_it_listens_everywhere_and_still_knows_its_own_names(daemon: Daemon) -> None:
    async with opened(daemon, host="0.0.0.0") as (face, client):
        assert face.url == f"http://127.0.0.1:{face.port}"
        for host, status in (("192.0.2.7", 200), (sockets.gethostname(), 200), ("evil.example", 421)):
            assert (await client.get("/health", headers={"host": host})).status_code == status
        assert (await client.get("/mcp")).status_code == 401


async def test_on_loopback_the_token_can_be_left_off(daemon: Daemon) -> None:
    async with opened(daemon, token=False) as (face, client):
        assert face.as_dict()["token"] is False
        assert (await client.post("/mcp", json=INITIALIZE, headers=ACCEPT)).status_code == 200
    assert not daemon.paths.token_file.exists()


async def test_a_port_that_is_taken_is_a_conflict_that_names_it(daemon: Daemon) -> None:
    async with opened(daemon) as (face, _):
        with pytest.raises(Conflict) as caught:
            await daemon.faces.http(port=face.port)
        assert str(face.port) in str(caught.value)
        assert len(daemon.faces.listening) == 1
    assert daemon.faces.listening == []


async def test_a_host_that_is_none_is_said_so(daemon: Daemon) -> None:
    with pytest.raises(ConfigError, match=r"no\.such\.host\.invalid"):
        await daemon.faces.http("no.such.host.invalid", 0)


async def test_the_token_stands_in_no_answer_and_no_log(daemon: Daemon, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with opened(daemon) as (face, client):
        token = daemon.paths.token_file.read_text().strip()
        answers = [
            await client.post("/mcp", json=INITIALIZE, headers={**ACCEPT, **bearer(daemon)}),
            await client.get("/mcp", headers={"authorization": f"Bearer {token}x"}),
            await client.get(f"/{token}", headers=bearer(daemon)),
        ]
        assert token not in json.dumps(face.as_dict())
    assert not any(token in answer.text for answer in answers)
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith(("httpx2", "httpcore"))]
    assert not any(token in line for line in ours)


async def test_a_body_beyond_the_cap_is_refused_declared_or_not(daemon: Daemon) -> None:
    async def chunks() -> AsyncGenerator[bytes]:
        for _ in range(10):
            yield b"x" * 1024 * 1024

    async with opened(daemon) as (face, client):
        declared = await client.post("/mcp", content=b"x" * 9 * 1024 * 1024, headers=bearer(daemon))
        assert declared.status_code == 413
        assert "8 MiB" in declared.json()["error"]["message"]
        reader, writer = await asyncio.open_connection("127.0.0.1", face.port)
        lines = ["POST /messages/ HTTP/1.1", "host: localhost", "transfer-encoding: chunked"]
        lines.append(f"authorization: {bearer(daemon)['authorization']}")
        writer.write("\r\n".join([*lines, "", ""]).encode())
        async for chunk in chunks():
            writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        writer.write(b"0\r\n\r\n")
        async with asyncio.timeout(PATIENCE_S):
            assert b"413" in await reader.readline()
        writer.close()


async def test_a_body_that_never_comes_is_given_up(daemon: Daemon) -> None:
    face = HttpFace(build_server(daemon.engine, daemon.tools), port=0, token=None, limits=Limits(body_s=0.2))
    await face.start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", face.port)
        writer.write(b"POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nabc")
        async with asyncio.timeout(PATIENCE_S):
            assert b"408" in await reader.readline()
        writer.close()
    finally:
        await face.aclose()


async def test_a_client_that_sends_its_headers_byte_by_byte_is_dropped(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    from interactd.faces.http import serving

    monkeypatch.setattr(serving, "HEADER_S", 0.3)
    async with opened(daemon) as (face, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", face.port)
        writer.write(b"GET /health HTTP/1.1\r\nhost: loc")
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read() == b""
        writer.close()


def test_what_counts_as_loopback() -> None:
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "192.168.0.1", "localhost.example", ""))


def test_an_ipv6_host_header_is_read_right() -> None:
    rules = Rules("::1", None)
    assert rules.host_allowed("[::1]:8642")
    assert rules.host_allowed("[::1]")
    assert not rules.host_allowed("[::1]evil.example")
    assert not rules.host_allowed("[2001:db8::1]:80")
    assert not rules.host_allowed(None)
