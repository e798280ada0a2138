"""url_fetch: one page or file from the web, as text, under the environment's network rules."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from interactd.builtins.clamp import clamped
from interactd.builtins.declare import declare
from interactd.builtins.files.view import MAX_IMAGE, picture
from interactd.builtins.port import Outcome, Replay, ToolContext
from interactd.nouns import Json, text_content
from interactd.sandbox.environments_port import Environment

TIMEOUT_S: Final = 30.0
MAX_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a request brought. `text` is the page as readable text, where it is text at all."""

    status: int
    url: str
    mime_type: str
    body: bytes
    text: str | None
    truncated: bool = False


class Fetcher(Protocol):
    """The way out to the web, outside of the sandbox, under an environment's `network`."""

    async def fetch(
        self,
        environment: Environment,
        url: str,
        *,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        timeout_s: float = TIMEOUT_S,
        max_bytes: int = MAX_BYTES,
    ) -> Fetched:
        """Make one request.

        Raises:
            InvalidArgument: no http(s) address.
            InteractdError: the environment's rules refuse the host, or it cannot be reached; the message says which.
        """
        ...


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
        got = await self._fetcher.fetch(ctx.workspace.environment, url)
        failed = got.status >= 400
        head = f"{got.status} {got.url} ({got.mime_type}, {len(got.body):,} bytes{', cut' if got.truncated else ''})"
        if not failed and (mime := picture(got.body)) and len(got.body) <= MAX_IMAGE and not got.truncated:
            image: Json = {"type": "image", "mime_type": mime, "data": base64.b64encode(got.body).decode()}
            return Outcome([text_content(head), image])
        if got.text is None:
            return Outcome(f"{head}\n[It is not text. Download it with code_execution.]", is_error=failed)
        return Outcome(f"{head}\n{await clamped(got.text, ctx)}", is_error=failed)
