"""From a checked name to a connected socket: resolved once, outside, and only that answer is dialled."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence

from interactd.sandbox.egress.limits import EgressLimits
from interactd.sandbox.egress.policy.addresses import is_own, not_public
from interactd.sandbox.egress.policy.hosts import Address, as_address
from interactd.sandbox.egress.policy.rules import Policy
from interactd.sandbox.egress.refusal import Refused, Unreachable

Resolver = Callable[[str], Awaitable[Sequence[str]]]
"""A canonical name to its addresses, as text. Raises OSError where there are none."""

LOOKUPS = 64
LOOKUPS_OF_A_RUN = 4
MAX_ADDRESSES = 64
DIALLED = 4

_threads = threading.BoundedSemaphore(LOOKUPS)


async def system_resolver(name: str) -> Sequence[str]:
    """Ask the machine's resolver on a thread of its own: a name server that hangs must not keep the daemon from
    ending, nor hold the few threads that others need.

    Raises:
        OSError: no such name, or too many lookups are under way.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Sequence[str]] = loop.create_future()

    def settle(found: Sequence[str] | OSError) -> None:
        if answer.done():
            return
        if isinstance(found, OSError):
            answer.set_exception(found)
        else:
            answer.set_result(found)

    def ask() -> None:
        found: Sequence[str] | OSError
        try:
            rows = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            found = list(dict.fromkeys(str(row[4][0]) for row in rows))
        except OSError as exc:
            found = exc
        except UnicodeError:
            found = OSError(f"{name} is not a name")
        finally:
            _threads.release()
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, found)

    if not _threads.acquire(blocking=False):
        raise OSError("too many lookups are under way")
    threading.Thread(target=ask, name="egress-resolve", daemon=True).start()
    return await answer


class Sharing:
    """One run's way to a resolver: a few lookups at once, so that names nobody answers for hold up that run alone.

    A lookup that nobody waits for any more still has its thread, and its place here.
    """

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._free = asyncio.Semaphore(LOOKUPS_OF_A_RUN)
        self._under_way: set[asyncio.Future[Sequence[str]]] = set()

    async def __call__(self, name: str) -> Sequence[str]:
        await self._free.acquire()
        asked = asyncio.ensure_future(self._resolver(name))
        self._under_way.add(asked)
        asked.add_done_callback(self._ended)
        return await asyncio.shield(asked)

    def close(self) -> None:
        """Wait for none of them any longer."""
        for asked in self._under_way:
            asked.cancel()

    def _ended(self, asked: asyncio.Future[Sequence[str]]) -> None:
        self._under_way.discard(asked)
        self._free.release()
        if not asked.cancelled():
            asked.exception()  # whoever still waits has it too


async def resolve(host: str, port: int, policy: Policy, resolver: Resolver, limits: EgressLimits) -> list[Address]:
    """Return the addresses that may be dialled for a host that the policy has allowed.

    Raises:
        Refused: one of them is not public and not listed; then none is dialled.
        Unreachable: there is no such name, or no answer in time.
    """
    literal = as_address(host)
    if literal is not None:
        found = [literal]
    else:
        try:
            async with asyncio.timeout(limits.resolve_s):
                found = _addresses(await resolver(host))
        except TimeoutError:
            raise Unreachable(f"looking up {host} took longer than {limits.resolve_s:g} s", status=504) from None
        except OSError:
            raise Unreachable(f"{host} does not resolve to an address", hint="Check the spelling.") from None
    for address in found:
        kind = not_public(address) or ("this machine's own" if is_own(address) else None)
        if kind is not None and not policy.lists_address(address, port):
            raise Refused(
                f"{host} resolves to an address that is {kind}",
                hint="Only public addresses are reached by name. The user can allow this one by adding "
                "the address itself, with its port, to the environment's network.allowlist.",
            )
    return found


async def connect(host: str, addresses: Sequence[Address], port: int, limits: EgressLimits) -> socket.socket:
    """Return a connected, non-blocking socket to one of the addresses that `resolve` gave.

    Raises:
        Unreachable: nothing answers.
    """
    loop = asyncio.get_running_loop()
    why = "nothing was tried"
    try:
        async with asyncio.timeout(limits.connect_s):
            for address in addresses[:DIALLED]:
                family = socket.AF_INET if address.version == 4 else socket.AF_INET6
                sock = socket.socket(family, socket.SOCK_STREAM)
                try:
                    sock.setblocking(False)
                    async with asyncio.timeout(max(1.0, limits.connect_s / len(addresses[:DIALLED]))):
                        await loop.sock_connect(sock, (str(address), port))
                    return sock
                except (OSError, TimeoutError) as exc:
                    sock.close()
                    why = "no answer" if isinstance(exc, TimeoutError) else (exc.strerror or "no connection").lower()
                except BaseException:
                    sock.close()
                    raise
    except TimeoutError:
        why = "no answer"
    raise Unreachable(f"{host}:{port} cannot be reached ({why})", status=504 if why == "no answer" else 502)


def _addresses(texts: Sequence[str]) -> list[Address]:
    found = [ipaddress.ip_address(text) for text in list(texts)[:MAX_ADDRESSES]]
    if not found:
        raise OSError("no address")
    return found
