"""What every connection of one proxy shares."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING

from interactd.sandbox.egress.dial import Resolver, system_resolver
from interactd.sandbox.egress.limits import Budget, EgressLimits
from interactd.sandbox.egress.log import RequestLog
from interactd.sandbox.egress.policy.rules import Policy
from interactd.sandbox.egress.refusal import Refused
from interactd.sandbox.egress.roots import client_context
from interactd.sandbox.egress.wire.head import BadHead, Request, parse_request
from interactd.sandbox.egress.wire.stream import Reader, TooLong

if TYPE_CHECKING:  # certificates are made for few runs, and the package that makes them is slow to import
    from interactd.sandbox.egress.authority import Authority


@cache
def upstream_context() -> ssl.SSLContext:
    """Return the one context for verified TLS to the outside; reading the roots takes tens of milliseconds."""
    return client_context()


@dataclass(slots=True)
class Run:
    """One policy at work. `upstream` verifies the servers whose TLS is ended; None is this machine's roots."""

    policy: Policy
    limits: EgressLimits
    budget: Budget
    log: RequestLog
    resolver: Resolver = system_resolver
    upstream: ssl.SSLContext | None = None
    authority: Authority | None = None

    async def context(self) -> ssl.SSLContext:
        """Return how upstream servers are verified."""
        if self.upstream is None:
            self.upstream = await asyncio.to_thread(upstream_context)
        return self.upstream


class Idle:
    """A time limit that every byte pushes back: `async with Idle(s) as idle: ... idle.tick()`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timeout = asyncio.timeout(seconds)
        self._loop = asyncio.get_running_loop()

    def tick(self) -> None:
        self._timeout.reschedule(self._loop.time() + self._seconds)

    async def __aenter__(self) -> Idle:
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> bool | None:
        return await self._timeout.__aexit__(kind, exc, tb)


async def read_request(reader: Reader, limits: EgressLimits, wait_s: float) -> Request | None:
    """Read the next request's head from a client; None when it has gone without beginning one.

    Args:
        wait_s: how long it may take to begin; from then on the whole head has `limits.head_s`.

    Raises:
        Refused: the head is malformed, too long or too slow.
    """
    try:
        if not reader.buffered:
            async with asyncio.timeout(wait_s):
                if not await reader.more():
                    return None
        async with asyncio.timeout(limits.head_s):
            first = await reader.exactly(1)
            reader.put_back(first)
            if not b"A" <= first <= b"Z":
                raise Refused("this is an HTTP proxy, and what came is not HTTP", status=400)
            return parse_request(await reader.until(b"\r\n\r\n", limits.head_bytes))
    except TimeoutError:
        if not reader.buffered:
            return None
        raise Refused(f"the request's head did not come within {limits.head_s:g} s", status=408) from None
    except TooLong:
        raise Refused(f"the request's head is longer than {limits.head_bytes} bytes", status=431) from None
    except BadHead as exc:
        raise Refused(str(exc)) from None
    except EOFError:
        return None
