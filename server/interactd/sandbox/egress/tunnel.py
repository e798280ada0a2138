"""CONNECT: a tunnel to a checked name. What is inside stays closed to us, but for the name in its first message."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

from interactd.sandbox.egress.dial import connect, resolve
from interactd.sandbox.egress.forward import Cut, Forwarder, Origin
from interactd.sandbox.egress.log import Entry
from interactd.sandbox.egress.policy.hosts import BadHost, as_address, canonical, printable, split_authority
from interactd.sandbox.egress.refusal import Refused, Unreachable, answer
from interactd.sandbox.egress.run import Idle, Run
from interactd.sandbox.egress.wire.head import Request
from interactd.sandbox.egress.wire.hello import ClientHello, NotTls, read_client_hello
from interactd.sandbox.egress.wire.stream import Reader, SocketStream, Stream
from interactd.sandbox.egress.wire.tls import TlsStream

_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
_ALERT_ACCESS_DENIED = b"\x15\x03\x03\x00\x02\x02\x31"
AFTER_END_S = 5


async def tunnel(run: Run, client: Reader, out: Stream, request: Request) -> None:
    """Serve one CONNECT to its end; the connection is not used again.

    Raises:
        Cut: it must be reset.
        OSError, ssl.SSLError: the client went away.
    """
    entry = run.log.open("CONNECT", "", 0)
    upstream: SocketStream | None = None
    try:
        try:
            host, port = _target(request)
            entry.host, entry.port = host, port
            run.budget.request()
            run.policy.check(host, port)
            ends = run.policy.ends_tls(host, port)
            addresses = await resolve(host, port, run.policy, run.resolver, run.limits)
            if not ends:
                upstream = SocketStream(await connect(host, addresses, port, run.limits))
        except Refused as refused:
            run.log.close(entry, "failed" if isinstance(refused, Unreachable) else "denied", refused.reason)
            await out.send(answer(refused))
            return
        await out.send(_ESTABLISHED)
        hello = await _hello(run, client, out, host)
        if upstream is not None:
            await _pass_through(run, client, out, upstream, hello.raw, entry)
        else:
            run.log.close(entry)
            await _end_tls(run, client, out, hello.raw, Origin(True, host, port))
    except Refused as refused:
        # The 200 has been sent: only the log, and for TLS an alert, can still tell.
        run.log.close(entry, "denied", refused.reason)
        raise Cut(refused.reason) from None
    except TimeoutError:
        run.log.close(entry, "failed", f"no byte for {run.limits.idle_s:g} s")
        raise Cut from None
    except (OSError, EOFError, ssl.SSLError):
        run.log.close(entry, "failed" if not entry.bytes_down else "allowed", "the connection was lost")
        raise Cut from None
    finally:
        run.log.close(entry)
        if upstream is not None:
            upstream.sock.close()


def _target(request: Request) -> tuple[str, int]:
    if request.length not in (None, 0):
        raise Refused("a CONNECT has no body")
    try:
        host, port = split_authority(request.target)
    except BadHost as exc:
        raise Refused(str(exc)) from None
    if port is None:
        raise Refused("a CONNECT names a port")
    return host, port


async def _hello(run: Run, client: Reader, out: Stream, host: str) -> ClientHello:
    try:
        async with asyncio.timeout(run.limits.tls_s):
            hello = await read_client_hello(client)
    except NotTls as exc:
        raise Refused(str(exc), hint="Only TLS goes through a tunnel.") from None
    except TimeoutError:
        raise Refused(f"no TLS began within {run.limits.tls_s:g} s in the tunnel to {host}") from None
    problem = _wrong_name(hello, host)
    if problem is not None:
        with contextlib.suppress(OSError):
            await out.send(_ALERT_ACCESS_DENIED)
        raise Refused(problem)
    return hello


def _wrong_name(hello: ClientHello, host: str) -> str | None:
    if hello.hidden_name:
        return "the TLS client hides the server's name (encrypted client hello)"
    if len(hello.names) == 0:
        return None if as_address(host) is not None else "the TLS client names no server (no SNI)"
    if len(hello.names) > 1:
        return "the TLS client names more than one server"
    try:
        same = canonical(hello.names[0]) == host
    except BadHost:
        same = False
    return None if same else f"the TLS client asks for {printable(hello.names[0], 80)} in a tunnel to {host}"


async def _end_tls(run: Run, client: Reader, out: Stream, hello: bytes, origin: Origin) -> None:
    authority = run.authority
    if authority is None:
        raise Refused("this proxy has no certificate authority", status=502)
    context = await asyncio.to_thread(authority.server_context, origin.host)
    inside = TlsStream(out, context, server_side=True, start=hello + client.take())
    try:
        async with asyncio.timeout(run.limits.tls_s):
            await inside.handshake()
    except (OSError, EOFError, TimeoutError) as exc:
        entry = run.log.open("TLS", origin.host, origin.port)
        known = getattr(exc, "reason", None) or type(exc).__name__
        run.log.close(entry, "failed", f"the client did not agree on TLS with the proxy ({known})")
        raise Cut from None
    forwarder = Forwarder(run, Reader(inside), inside, origin)
    try:
        await forwarder.serve()
        async with asyncio.timeout(AFTER_END_S):
            await inside.finish()
    finally:
        forwarder.close()


async def _pass_through(
    run: Run, client: Reader, out: Stream, upstream: SocketStream, hello: bytes, entry: Entry
) -> None:
    async with Idle(run.limits.idle_s) as idle:

        async def up() -> None:
            client.put_back(hello)
            while data := await client.some():
                entry.bytes_up += len(data)
                run.budget.sent(len(data))
                await upstream.send(data)
                idle.tick()
            await upstream.finish()

        async def down() -> None:
            while data := await upstream.recv():
                entry.bytes_down += len(data)
                run.budget.received(len(data))
                await out.send(data)
                idle.tick()
            await out.finish()

        sending, receiving = asyncio.create_task(up()), asyncio.create_task(down())
        try:
            done, _ = await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            # A client that has said all may still be answered at length; a server that ended is not told much more.
            if sending in done:
                await receiving
            else:
                await asyncio.wait({sending}, timeout=AFTER_END_S)
        finally:
            sending.cancel()
            receiving.cancel()
            await asyncio.wait({sending, receiving})
