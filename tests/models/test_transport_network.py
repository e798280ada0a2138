"""Calls over a real socket: what each failure of the network is called, and that keys stay where they are."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

import pytest

from interactd.config import Kind
from interactd.errors import (
    KeyRefused,
    ProviderRejected,
    ProviderUnavailable,
)
from interactd.models.http.clients import Clients
from interactd.models.keys import MASK
from models.transport_kit import KEY, KINDS, clients, collect, failure, fake, model, text_of
from support.provider import FakeProvider, Fault, Raw, Redirect, sse

__all__ = ["clients", "fake"]

pytestmark = pytest.mark.anyio


# -- the network -----------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def test_nothing_listening_on_this_machine_is_told_at_once(clients: Clients) -> None:
    error = await failure(model(clients, f"http://127.0.0.1:{free_port()}"))
    assert isinstance(error, ProviderUnavailable)
    assert "nothing answers on 127.0.0.1:" in error.message
    assert "attempts" not in error.fields


async def test_an_unknown_host_name_is_told(clients: Clients) -> None:
    error = await failure(model(clients, "https://no-such-host.invalid", max_retries=0))
    assert isinstance(error, ProviderUnavailable)
    assert "no-such-host.invalid" in error.message


async def test_https_to_a_plain_server_is_told(clients: Clients, fake: FakeProvider) -> None:
    error = await failure(model(clients, fake.base_url.replace("http:", "https:")))
    assert isinstance(error, ProviderUnavailable)
    assert "TLS" in error.message
    assert "http://" in (error.repair or "")


async def test_a_certificate_that_is_not_trusted_is_told(clients: Clients, tmp_path: Any, fake: FakeProvider) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*self_signed(tmp_path))
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0, ssl=context)
    try:
        port = server.sockets[0].getsockname()[1]
        error = await failure(model(clients, f"https://127.0.0.1:{port}"))
    finally:
        server.close()
    assert isinstance(error, ProviderUnavailable)
    assert "certificate" in error.message
    assert "SSL_CERT_FILE" in (error.repair or "")


def self_signed(folder: Any) -> tuple[str, str]:
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    (folder / "cert.pem").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return str(folder / "cert.pem"), str(folder / "key.pem")


async def test_a_proxy_for_the_world_is_not_used_for_this_machine(
    clients: Clients, fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{free_port()}")
    fake.script("direct")
    assert text_of(await collect(model(clients, fake.base_url))) == "direct"


# -- keys ------------------------------------------------------------------------------------------------------------


async def test_a_redirect_is_not_followed_and_the_key_stays(clients: Clients, fake: FakeProvider) -> None:
    async with FakeProvider() as elsewhere:
        fake.script([Redirect(elsewhere.base_url + "/v1/chat/completions"), "never asked"])
        error = await failure(model(clients, fake.base_url))
        assert isinstance(error, ProviderUnavailable)
        assert elsewhere.base_url in error.message
        assert elsewhere.connections == 0
    assert len(fake.requests) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_key_that_the_provider_echoes_is_removed(kind: Kind, clients: Clients, fake: FakeProvider) -> None:
    fake.script(Fault(401, f"Incorrect API key provided: {KEY}."))
    error = await failure(model(clients, fake.base_url, kind))
    assert isinstance(error, KeyRefused)
    assert KEY not in repr(error) + str(error.__cause__) + str(error.__context__)


async def test_a_key_echoed_inside_a_stream_is_removed(clients: Clients, fake: FakeProvider) -> None:
    fake.script(Raw([sse({"error": {"message": f"bad key {KEY}", "code": 400}})]))
    error = await failure(model(clients, fake.base_url))
    assert KEY not in error.message
    assert MASK in error.message or "***" in error.message or "bad key" in error.message


async def test_a_huge_error_body_is_read_only_in_part(clients: Clients, fake: FakeProvider) -> None:
    fake.script(Raw([b"x" * 65536] * 400, status=400, content_type="text/plain"))
    error = await failure(model(clients, fake.base_url))
    assert isinstance(error, ProviderRejected)
    assert len(error.message) < 5000
    await asyncio.wait_for(fake.requests[0].disconnected.wait(), 2)
