"""url_fetch: one page or file from the web, as text, under the environment's network rules."""

from __future__ import annotations

import base64
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from interactd.builtins.clamp import clamped
from interactd.builtins.declare import declare
from interactd.builtins.files.view import MAX_IMAGE, picture
from interactd.builtins.port import Outcome, Replay, ToolContext
from interactd.errors import NetworkRefused, ProviderTimeout, ProviderUnavailable
from interactd.nouns import Json, text_content
from interactd.sandbox.credentials.kinds import SecretSource
from interactd.sandbox.egress.log import RequestLog
from interactd.sandbox.egress.pages.fetch import Fetched, fetch
from interactd.sandbox.egress.policy.rules import Policy
from interactd.sandbox.environments_port import Environment

TIMEOUT_S: Final = 30.0
MAX_BYTES: Final = 4 * 1024 * 1024


class Fetcher(Protocol):
    """The way out to the web, outside of the sandbox, under an environment's rules."""

    async def fetch(self, environment: Environment, url: str, log: RequestLog) -> Fetched:
        """GET a page or file; every request that it takes is written to `log`, those that are refused too.

        Raises:
            InvalidArgument: no http(s) address.
            InteractdError: the rules refuse the host, or it cannot be reached; the message says which.
        """
        ...


class PolicyFetcher:
    """The egress policy of the environment, applied to a request of the daemon's own.

    Args:
        credentials: where secrets are that the environment's rules refer to.
    """

    def __init__(self, credentials: SecretSource | None = None) -> None:
        self._credentials = credentials

    async def fetch(self, environment: Environment, url: str, log: RequestLog) -> Fetched:
        policy = Policy.from_environment(environment.network, environment.env, self._credentials)
        return await fetch(url, policy, MAX_BYTES, TIMEOUT_S, log=log)


class UrlFetch:
    """Reading only: GET, no cookies, no credentials but those the environment names for the host."""

    name = "url_fetch"
    replay: Replay = "safe"
    parallel = True
    declaration = declare(
        "url_fetch",
        "Fetch a web page or file by its URL and return its text.",
        {"url": {"type": "string"}},
        required=("url",),
    )

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher

    async def call(self, arguments: dict[str, Any], ctx: ToolContext) -> Outcome:
        url = arguments["url"].strip()
        if "://" not in url:
            url = f"https://{url}"
        if urlsplit(url).scheme not in ("http", "https"):
            return Outcome("Only http and https addresses can be fetched.", is_error=True)
        try:
            got = await self._fetcher.fetch(ctx.workspace.environment, url, ctx.workspace.requests)
        except (NetworkRefused, ProviderUnavailable, ProviderTimeout) as error:
            return Outcome(f"{error.message}. {error.repair or ''}".strip(), is_error=True)
        failed = got.status >= 400
        kind = got.content_type.partition(";")[0] or "unknown type"
        head = f"{got.status} {got.url} ({kind}, {len(got.body):,} bytes{', cut' if got.truncated else ''})"
        if not failed and (mime := picture(got.body)) and len(got.body) <= MAX_IMAGE and not got.truncated:
            image: Json = {"type": "image", "mime_type": mime, "data": base64.b64encode(got.body).decode()}
            return Outcome([text_content(head), image])
        if got.text is None:
            return Outcome(f"{head}\n[It is not text. Download it with code_execution.]", is_error=failed)
        return Outcome(f"{head}\n{await clamped(got.text, ctx)}", is_error=failed)
