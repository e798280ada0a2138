"""What can go wrong between us and a provider, as errors that say what to do."""

from __future__ import annotations

import email.utils
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from typing import cast

import httpx2

from interactd.errors import (
    ConfigError,
    InteractdError,
    ProviderTimeout,
    ProviderUnavailable,
    RateLimited,
    StreamMalformed,
    StreamTruncated,
)
from interactd.models.http.urls import host_of, is_loopback
from interactd.models.providers import Provider

TIMEOUTS = {
    "connect_timeout_s": "did not accept the connection",
    "first_byte_timeout_s": "accepted the request and sent nothing",
    "idle_timeout_s": "stopped in the middle of its answer and sent nothing more",
    "timeout_s": "was not done",
}
LONGEST_RETRY_AFTER_S = 30.0


class Failed(Exception):
    """An attempt that failed: the error to show, whether trying again can help, and for how long we are to wait."""

    def __init__(self, error: InteractdError, *, retry: bool, after_s: float | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.retry = retry
        self.after_s = after_s


def timed_out(provider: Provider, setting: str) -> Failed:
    """`setting` is the name of the limit that was reached, as in the configuration."""
    limit = getattr(provider.settings, setting)
    return Failed(
        ProviderTimeout(
            f"{provider.name} {TIMEOUTS[setting]} within {limit:g} s ({setting})",
            repair=f"Try again, or raise {setting} under [providers.{provider.name}] in the configuration file.",
            provider=provider.name,
            setting=setting,
            limit_s=limit,
        ),
        retry=setting == "connect_timeout_s",
    )


def answered(error: InteractdError, headers: Mapping[str, str]) -> Failed:
    """A provider's own error answer, as its codec understood it."""
    after = error.fields.get("retry_after_s")
    after_s = float(after) if isinstance(after, int | float) else retry_after(headers)
    if after_s is not None and isinstance(error, RateLimited):
        error.fields.setdefault("retry_after_s", after_s)
    retry = isinstance(error, RateLimited | ProviderUnavailable)
    if headers.get("x-should-retry") == "false":
        retry = False
    return Failed(error, retry=retry and (after_s is None or after_s <= LONGEST_RETRY_AFTER_S), after_s=after_s)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Read `retry-after-ms`, or `retry-after` as seconds or as a date; seconds, never negative."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name, "").strip()
        try:
            value = float(text) * unit
        except ValueError:
            continue
        if 0 <= value < 1e9:
            return value
    when = (
        email.utils.parsedate_to_datetime(text) if (text := headers.get("retry-after", "")) and _is_date(text) else None
    )
    return max(0.0, when.timestamp() - time.time()) if when else None


def redirected(provider: Provider, status: int, location: str) -> Failed:
    shown = location[:200] or "nowhere"
    return Failed(
        ProviderUnavailable(
            f"{provider.name} answered with a redirect ({status}) to {shown}; it was not followed, because the key "
            "would have gone there too",
            repair=f"If that address is right, set it as base_url under [providers.{provider.name}].",
            provider=provider.name,
            status=status,
        ),
        retry=False,
    )


def web_page(provider: Provider) -> Failed:
    return Failed(
        StreamMalformed(
            f"{host_of(provider.base_url)} answered with a web page, not as {provider.name}'s API",
            repair=f"Check base_url under [providers.{provider.name}]: it should be the API's address.",
            provider=provider.name,
        ),
        retry=False,
    )


def too_large(provider: Provider, limit: int) -> Failed:
    return Failed(
        StreamMalformed(
            f"{provider.name}'s answer is larger than {limit:,} bytes",
            repair="Ask for less at once, or set max_output_tokens.",
            provider=provider.name,
        ),
        retry=False,
    )


def truncated(provider: Provider) -> Failed:
    return Failed(
        StreamTruncated(
            f"{provider.name}'s stream ended before it said that it was done",
            repair="Send the turn again.",
            provider=provider.name,
        ),
        retry=True,
    )


def broken(provider: Provider, error: httpx2.HTTPError | httpx2.InvalidURL | OSError) -> Failed:
    """A failure before the first byte of the answer."""
    host = host_of(provider.base_url)
    causes = list(_causes(error))

    def unavailable(message: str, repair: str, *, retry: bool) -> Failed:
        found = ProviderUnavailable(f"{provider.name}: {message}", repair=repair, provider=provider.name)
        if isinstance(error, httpx2.ConnectError | httpx2.ProxyError):
            # What never reached the provider cannot have cost anything.
            found.fields["sent"] = False
        return Failed(found, retry=retry)

    if isinstance(error, httpx2.ConnectTimeout):
        return timed_out(provider, "connect_timeout_s")
    if isinstance(error, httpx2.TimeoutException):
        return timed_out(provider, "first_byte_timeout_s")
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return unavailable(
                f"the certificate of {host} is not trusted ({cause.verify_message})",
                "Check this machine's clock and base_url; behind a company proxy, set SSL_CERT_FILE to its "
                "certificate and restart the daemon.",
                retry=False,
            )
        if isinstance(cause, ssl.SSLError):
            return unavailable(
                f"{host} does not speak TLS as expected ({cause.reason or 'handshake failed'})",
                "Check base_url: a plain local server wants http://, not https://.",
                retry=False,
            )
        if isinstance(cause, socket.gaierror):
            return unavailable(
                f"the host name of {host} cannot be found",
                f"Check the network connection, and base_url under [providers.{provider.name}].",
                retry=cause.errno == socket.EAI_AGAIN,
            )
    if isinstance(error, httpx2.ProxyError):
        return unavailable(
            f"the proxy on the way to {host} refused", "Check HTTPS_PROXY and NO_PROXY of the daemon.", retry=False
        )
    if isinstance(error, httpx2.ConnectError):
        if is_loopback(provider.base_url):
            return unavailable(f"nothing answers on {host}", start_hint(provider.name), retry=False)
        return unavailable(
            f"{host} cannot be reached",
            f"Check the network connection, and base_url under [providers.{provider.name}].",
            retry=True,
        )
    if isinstance(error, httpx2.LocalProtocolError | httpx2.UnsupportedProtocol | httpx2.InvalidURL):
        return Failed(
            ConfigError(
                f"providers.{provider.name}: the request cannot be sent: its headers or address are not legal HTTP",
                repair=f"Check base_url and headers under [providers.{provider.name}], and the key for line breaks.",
            ),
            retry=False,
        )
    return unavailable(f"{host} closed the connection without an answer", "Try again.", retry=True)


def start_hint(provider: str) -> str:
    """How to start a local server, in one sentence."""
    return {
        "ollama": "Start Ollama (`ollama serve`), or set OLLAMA_HOST if it listens elsewhere.",
        "lmstudio": "Start LM Studio's server (`lms server start`).",
        "vllm": "Start vLLM (`vllm serve MODEL`), or set base_url under [providers.vllm].",
        "llamacpp": "Start llama-server, or set base_url under [providers.llamacpp].",
        "embedded": "Run `interactd setup`.",
    }.get(provider, f"Start the server, or correct base_url under [providers.{provider}].")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    if error is None:
        return
    yield error
    if isinstance(error, BaseExceptionGroup):
        for part in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from _causes(part)
    yield from _causes(error.__cause__ or error.__context__)


def _is_date(text: str) -> bool:
    return email.utils.parsedate(text) is not None
