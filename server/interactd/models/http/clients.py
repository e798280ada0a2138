"""One HTTP client per provider: connections are kept alive and shared by all its models."""

from __future__ import annotations

import asyncio
import ssl
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx2

from interactd._version import __version__
from interactd.models.http.urls import is_loopback

_FAR = httpx2.Limits(max_connections=256, max_keepalive_connections=16, keepalive_expiry=30)
# Local servers often have a thread per connection (llama-server) and close an idle one after 5 s (uvicorn): hold few,
# and let go before they do.
_NEAR = httpx2.Limits(max_connections=256, max_keepalive_connections=2, keepalive_expiry=2)


class Clients:
    """Makes clients when they are first needed, and closes them all."""

    def __init__(self) -> None:
        self._clients: dict[tuple[str, bool, bool], httpx2.AsyncClient] = {}
        self._ssl: ssl.SSLContext | None = None
        self._lock = asyncio.Lock()

    async def get(self, provider: str, base_url: str) -> httpx2.AsyncClient:
        """Return the provider's client for such an address."""
        secure, loopback = base_url.startswith("https:"), is_loopback(base_url)
        key = (provider, secure, loopback)
        if (client := self._clients.get(key)) is not None:
            return client
        async with self._lock:
            if secure and self._ssl is None:
                # Reading the certificates takes tens of milliseconds: not on the event loop.
                self._ssl = await asyncio.to_thread(httpx2.create_ssl_context)
            if key not in self._clients:
                self._clients[key] = httpx2.AsyncClient(
                    verify=self._ssl if secure and self._ssl is not None else False,
                    limits=_NEAR if loopback else _FAR,
                    # A redirect would carry the key to an address that nobody configured.
                    follow_redirects=False,
                    # HTTP_PROXY is for the world outside; a proxy cannot reach this machine's own servers.
                    trust_env=not loopback,
                    # One client serves callers with different keys: nothing a provider sets for one goes along
                    # with another.
                    cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
                    headers={"user-agent": f"interactd/{__version__}"},
                )
            return self._clients[key]

    async def aclose(self) -> None:
        """Close every connection. A client made afterwards is a new one."""
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            await client.aclose()
