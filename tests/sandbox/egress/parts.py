"""Loopback servers, a name service that says what a test wants, and clients that speak as programs in a sandbox do."""

from __future__ import annotations

import asyncio
import datetime
import http.client
import ipaddress
import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from interactd.errors import NotFound
from interactd.nouns import Json
from interactd.sandbox.credentials.kinds import Credential, NewCredential, Secret, parse
from interactd.sandbox.egress.limits import EgressLimits
from interactd.sandbox.egress.policy.rules import Policy
from interactd.sandbox.egress.proxy import Proxy

WAIT_S = 10


@dataclass(slots=True)
class Seen:
    """A request as the server got it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


Respond = Callable[[Seen], bytes]


def reply(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """An answer with its length."""
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@dataclass
class Server:
    """An HTTP/1.1 server on loopback, with keep-alive. `connections` counts what it accepted."""

    respond: Respond = lambda seen: reply(b"hello from " + (seen.header("host") or "nobody").encode())
    seen: list[Seen] = field(default_factory=list[Seen])
    connections: int = 0
    port: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head[:-4].split("\r\n")
                method, target, _ = first.split(" ")
                pairs = [line.split(": ", 1) for line in lines]
                seen = Seen(method, target, [(key, value) for key, value in pairs], b"")
                if seen.header("transfer-encoding") == "chunked":
                    while size := int(await reader.readuntil(b"\r\n"), 16):
                        seen.body += await reader.readexactly(size)
                        await reader.readexactly(2)
                    await reader.readexactly(2)
                else:
                    seen.body = await reader.readexactly(int(seen.header("content-length") or 0))
                self.seen.append(seen)
                writer.write(self.respond(seen))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, ssl.SSLError):
            return
        finally:
            self._tasks.discard(task)
            writer.close()

    def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()


class Keep:
    """Credentials held by the test."""

    def __init__(self, *bodies: Mapping[str, Any]) -> None:
        self.held: dict[str, NewCredential] = {}
        for body in bodies:
            new = parse(body, 1.0)
            self.held[new.credential.id] = new

    def get(self, credential_id: str) -> Credential:
        if credential_id not in self.held:
            raise NotFound("no such credential")
        return self.held[credential_id].credential

    def secret(self, credential_id: str) -> Secret:
        return self.held[credential_id].secret


@dataclass
class TestAuthority:
    """The roots of the test's internet."""

    __test__ = False
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    folder: Path

    @staticmethod
    def make(folder: Path) -> TestAuthority:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test internet")])
        made = _certificate(name, name, key, key, None)
        return TestAuthority(key, made, folder)

    def trusting(self) -> ssl.SSLContext:
        """A client's context that knows only this authority."""
        return ssl.create_default_context(cadata=self.pem.decode())

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def server(self, *names: str) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
        leaf = _certificate(subject, self.certificate.subject, key, self.key, names)
        file = self.folder / f"server-{names[0]}.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + leaf.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    names: Sequence[str] | None,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - day).not_valid_after(now + day)
    builder = builder.add_extension(x509.BasicConstraints(ca=names is None, path_length=None), critical=True)
    if names is not None:
        alternatives = [
            x509.IPAddress(ipaddress.ip_address(name)) if name[0].isdigit() else x509.DNSName(name) for name in names
        ]
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(signer, hashes.SHA256())


class Net:
    """A small internet on loopback. `names` is its name service: a name to the addresses of each lookup in turn."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, list[list[str]]] = {}
        self.lookups: list[str] = []
        self.roots = TestAuthority.make(folder)
        self._closing: list[Callable[[], object]] = []
        self._serving: list[asyncio.Task[None]] = []
        self._proxies: list[Proxy] = []

    async def resolve(self, name: str) -> Sequence[str]:
        self.lookups.append(name)
        answers = self.names.get(name, [["127.0.0.1"]])
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        if not found:
            raise OSError("no such name")
        return found

    async def server(self, respond: Respond | None = None, *, tls: Sequence[str] = ()) -> Server:
        made = Server() if respond is None else Server(respond)
        context = self.roots.server(*tls) if tls else None
        listening = await asyncio.start_server(made.handle, "127.0.0.1", 0, ssl=context)
        made.port = listening.sockets[0].getsockname()[1]
        self._closing += [listening.close, made.stop]
        return made

    async def proxy(
        self,
        allow: Sequence[str | Json],
        env: Mapping[str, Any] | None = None,
        keep: Keep | None = None,
        **options: Any,
    ) -> Route:
        network = {"allowlist": list(allow)}
        policy = Policy.from_environment(network, env or {}, keep)
        proxy = await Proxy.open(
            policy, self.folder, resolver=self.resolve, upstream=self.roots.trusting(), name="test", **options
        )
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        port = listener.getsockname()[1]
        self._serving.append(asyncio.create_task(proxy.serve(listener)))
        self._proxies.append(proxy)
        return Route(proxy, policy, port)

    async def aclose(self) -> None:
        for proxy in self._proxies:
            await proxy.aclose()
        for task in self._serving:
            await asyncio.wait_for(task, WAIT_S)
        for close in self._closing:
            close()
        # Cancelled handlers close their transports in the loop's next rounds.
        for _ in range(3):
            await asyncio.sleep(0)


@asynccontextmanager
async def internet(folder: Path) -> AsyncGenerator[Net]:
    net = Net(folder)
    try:
        yield net
    finally:
        await net.aclose()


@dataclass
class Answer:
    status: int
    reason: str
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")


@dataclass
class Route:
    """A proxy at work, as a program in its sandbox sees it."""

    proxy: Proxy
    policy: Policy
    port: int

    @property
    def log(self) -> list[Json]:
        return self.proxy.log()

    async def raw(self, data: bytes, *, finish: bool = True) -> bytes:
        """Send bytes and return all that comes until the connection is closed."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            if finish:
                writer.write_eof()
            async with asyncio.timeout(WAIT_S):
                out = b""
                with suppress(ConnectionError):
                    while piece := await reader.read(65536):
                        out += piece
                return out
        finally:
            writer.close()

    async def get(self, url: str, *, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        """One plain request through the proxy."""

        def ask() -> Answer:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
            return _ask(connection, method, url, body, headers)

        return await asyncio.to_thread(ask)

    async def https(
        self,
        url: str,
        *,
        method: str = "GET",
        body: bytes | None = None,
        roots: ssl.SSLContext | None = None,
        **headers: str,
    ) -> Answer:
        """One request through a tunnel; by default the sandbox's own bundle decides on certificates."""
        host, _, path = url.removeprefix("https://").partition("/")
        name, _, port = host.partition(":")
        context = roots or self.trusting()

        def ask() -> Answer:
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=WAIT_S, context=context)
            connection.set_tunnel(name, int(port or 443))
            return _ask(connection, method, "/" + path, body, headers)

        return await asyncio.to_thread(ask)

    def trusting(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.proxy.ca_file)

    async def handshake(self, connect_to: str, server_name: str | None, roots: ssl.SSLContext) -> None:
        """Open a tunnel to one name and say another inside. Raises: OSError."""

        def shake() -> None:
            with socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S) as sock:
                sock.sendall(f"CONNECT {connect_to} HTTP/1.1\r\nHost: {connect_to}\r\n\r\n".encode())
                said = sock.recv(65536)
                assert said.startswith(b"HTTP/1.1 200 "), said
                roots.check_hostname = False
                with roots.wrap_socket(sock, server_hostname=server_name):
                    pass

        await asyncio.to_thread(shake)


def _ask(
    connection: http.client.HTTPConnection, method: str, url: str, body: bytes | None, headers: dict[str, str]
) -> Answer:
    try:
        given = {key.replace("_", "-"): value for key, value in headers.items()}
        connection.request(method, url, body=body, headers=given)
        answer = connection.getresponse()
        return Answer(answer.status, answer.reason, dict(answer.getheaders()), answer.read())
    finally:
        connection.close()


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that another task brings about."""
    async with asyncio.timeout(WAIT_S):
        while not true():  # noqa: ASYNC110 - what is waited for is a list that others fill
            await asyncio.sleep(0.005)


def small(**changes: Any) -> EgressLimits:
    return EgressLimits(**changes)
