"""A provider's "no" in our words: which error an HTTP status or a mid-stream error event means.

Providers agree on little, so the decision looks at the status, at the provider's own error words, and last at
the sentence. The provider's sentence is kept, without anything that looks like a key.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, cast

from interactd.errors import (
    ContentBlocked,
    ContextOverflow,
    InteractdError,
    KeyRefused,
    ProviderRejected,
    ProviderUnavailable,
    QuotaExceeded,
    RateLimited,
    UnknownModel,
)
from interactd.models.codecs.shapes import mend
from interactd.nouns import Json

MAX_MESSAGE = 1000

_STATUS_OF = {
    # words that stand for a status where an error comes without one (inside a stream)
    "invalid_request_error": 400,
    "invalid_prompt": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "billing_error": 402,
    "insufficient_quota": 429,
    "permission_error": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "too_many_requests": 429,
    "overloaded_error": 529,
    "api_error": 500,
    "server_error": 500,
    "internal_server_error": 500,
    "timeout_error": 504,
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
_OVERFLOW = re.compile(
    r"context_length_exceeded|exceed_context_size|context_window_exceeded|maximum context length"
    r"|context length (?:of|is)"
    r"|exceeds? (?:the |your |this model's )?(?:maximum )?(?:available )?context|context window (?:is full|exceeded)"
    r"|prompt is too long|input is too long|input token count .{0,40}exceeds|exceeds the maximum number of tokens"
    r"|too many (?:input |prompt )?tokens|too large for model|reduce the length of the (?:messages|prompt|input)"
    r"|longer than the (?:model's )?(?:maximum )?context|exceeds? (?:the )?model(?:'s)? (?:maximum|context|input)"
    r"|greater than the context (?:length|window)|max_tokens.{0,60}exceed context limit|string_above_max_length",
    re.IGNORECASE,
)
_QUOTA = re.compile(
    r"insufficient_quota|billing_hard_limit|billing_not_active|credit balance|insufficient (?:balance|credits?|funds)"
    r"|out of credits|requires? (?:more|at least .{0,20}) credits|payment required|spending limit"
    r"|exceeded your current quota"
    r"|billing_error",
    re.IGNORECASE,
)
_MODEL = re.compile(
    r"model_not_found|DeploymentNotFound|not a valid model|unknown model|invalid model|no such model|unsupported model"
    r"|model\b.{0,120}(?:does not exist|doesn't exist|not found|is not available|no longer available"
    r"|is not supported for)"
    r"|deployment .{0,80}does not exist",
    re.IGNORECASE | re.DOTALL,
)
_BLOCKED = re.compile(
    r"content_policy_violation|content_filter|content management policy|ResponsibleAIPolicyViolation|content_policy"
    r"|safety_violation|flagged for|violat\w+ (?:our|the) (?:usage|content) polic|_policy_violation|bio_policy",
    re.IGNORECASE,
)
_BAD_KEY = re.compile(
    r"API_KEY_INVALID|API key not valid|API key expired|invalid_api_key|incorrect api key", re.IGNORECASE
)
_SECRETS = (
    # the shapes of known keys, then whatever a sentence says is one
    re.compile(r"\b(?:sk|pk|rk|gsk|xai|csk|nvapi|pplx|tgp|fw|hf|r8|or|api|key)[-_][A-Za-z0-9_\-*.…]{6,}"),
    re.compile(r"\bAIza[A-Za-z0-9_\-*.]{6,}|\bAQ\.[A-Za-z0-9_\-]{10,}|\bya29\.[A-Za-z0-9_\-.]{6,}"),
    re.compile(r"\b[A-Za-z0-9_\-]*\*{3,}[A-Za-z0-9_\-*]*"),
    re.compile(r"(?i)(?<=bearer )[^\s\"',;]{6,}"),
    re.compile(
        r"(?i)((?:api[ _-]?key|x-api-key|token|authorization|secret|credential)s?(?: provided)?(?: is)?[\"']?\s*[:=]\s*"
        r"[\"'`]?(?:bearer )?)[^\s\"'`,;<>]{6,}"
    ),
)


def redact(text: str) -> str:
    """Return the text without anything that looks like an API key."""
    for pattern in _SECRETS:
        text = pattern.sub(lambda m: (m.group(1) if m.lastindex else "") + "[key]", text)
    return text


@dataclass(slots=True)
class Fault:
    """What a provider said was wrong, read from a body or an event."""

    message: str
    words: list[str] = field(default_factory=list[str])
    """Its error code, type and status words."""
    status: int | None = None
    retry_after_s: float | None = None
    html: bool = False
    daily: bool = False
    """A quota that does not come back within minutes."""


def read_fault(body: str) -> Fault:
    """Read an error body of any provider, or of a proxy in front of it."""
    stripped = body.strip()
    try:
        value: Any = json.loads(stripped)
    except (ValueError, RecursionError):
        return _plain_fault(stripped)
    if isinstance(value, list) and value:
        value = cast("list[Any]", value)[0]
    return fault_of(cast("Json", value)) if isinstance(value, dict) else _plain_fault(stripped)


def fault_of(value: Json) -> Fault:
    """Read an error object: `{"error": {...}}`, `{"error": "..."}`, `{"message": ...}` or `{"detail": ...}`."""
    inner: Any = value.get("error")
    error = cast("Json", inner) if isinstance(inner, dict) else value
    message: Any = inner if isinstance(inner, str) else error.get("message") or error.get("detail") or error.get("msg")
    if not isinstance(message, str):
        message = json.dumps(message if message is not None else value, ensure_ascii=False)
    fault = Fault(message)
    nested: Any = error.get("innererror")
    sources = (error, value, cast("Json", nested) if isinstance(nested, dict) else {})
    for word in (source.get(name) for source in sources for name in ("code", "type", "status")):
        if isinstance(word, str) and word not in fault.words and word != "error":
            fault.words.append(word)
        elif isinstance(word, int) and 300 <= word <= 599:
            fault.status = fault.status or word
    _google_details(error.get("details"), fault)
    metadata: Any = error.get("metadata")
    if isinstance(metadata, dict):
        # A router puts the sentence of the provider behind it here, and its own says only "Provider returned error".
        raw: Any = cast("Json", metadata).get("raw")
        if isinstance(raw, str) and raw:
            fault.message += f" ({read_fault(raw).message})"
    if fault.status is None:
        fault.status = next((_STATUS_OF[word] for word in fault.words if word in _STATUS_OF), None)
    return fault


def to_error(
    provider: str, fault: Fault, status: int | None = None, headers: Mapping[str, str] | None = None
) -> InteractdError:
    """Decide which error it is.

    Args:
        provider: our name of it, for the sentence.
        fault: what it said.
        status: the HTTP status, where there was one; else the fault's own words decide (500 when they say nothing).
    """
    code = status if status is not None and status >= 300 else fault.status or 500
    words = " ".join([*fault.words, fault.message])
    message = mend(redact(fault.message.strip()))[:MAX_MESSAGE] or f"HTTP {code} without a word"
    wait = retry_after(headers or {}, fault)
    fields: Json = {"provider": provider, "status": code}
    if fault.words:
        fields["provider_code"] = mend(redact(fault.words[0]))[:100]
    if wait is not None:
        fields["retry_after_s"] = wait
    kind, repair = _decide(provider, code, words, fault, wait)
    return kind(f"{provider}: {message}", repair=repair, **fields)


def _decide(provider: str, code: int, words: str, fault: Fault, wait: float | None) -> tuple[type[InteractdError], str]:
    if code < 500 and _OVERFLOW.search(words):
        return ContextOverflow, "Start or fork a shorter session, or use a model with a larger context window."
    if _is_quota(code, words, fault):
        return QuotaExceeded, f"Add credit or raise the limit in {provider}'s console, or use another model."
    if code == 401 or (code < 500 and _BAD_KEY.search(words)):
        return KeyRefused, f"Check the API key for {provider}; `interactd models` says where it was found."
    if code < 500 and _BLOCKED.search(words):
        return ContentBlocked, "Rephrase the request, or use another model."
    if code == 403:
        return KeyRefused, f"The key for {provider} may not use this model or API; check its permissions and region."
    if code == 404 or (code < 500 and code != 429 and _MODEL.search(words)):
        hint = "Check the model's name with list_agents or `interactd models`"
        return UnknownModel, hint + (
            ", and the provider's base URL: this was not an API's answer." if fault.html else "."
        )
    if code == 413:
        return ContextOverflow, "Send less at once, or start or fork a shorter session."
    if code == 429:
        return RateLimited, f"Wait {wait:.0f} s and send it again." if wait else "Wait a minute and send it again."
    if code == 408 or code >= 500:
        return ProviderUnavailable, "Send it again in a moment, or use another model."
    if code < 400:
        return ProviderRejected, f"Set {provider}'s base URL to the address it redirects to."
    return ProviderRejected, "Change what the message names and send it again."


def _is_quota(code: int, words: str, fault: Fault) -> bool:
    if code == 402 or fault.daily:
        return True
    # Google says "quota" for what comes back in a minute, too: there only the quota's own name decides.
    return code < 500 and "RESOURCE_EXHAUSTED" not in fault.words and _QUOTA.search(words) is not None


def retry_after(headers: Mapping[str, str], fault: Fault | None = None) -> float | None:
    """Seconds to wait: from the headers, Google's RetryInfo, or the sentence; `None` when nobody said."""
    lower = {name.lower(): value for name, value in headers.items()}
    if (ms := _number(lower.get("retry-after-ms"))) is not None:
        return ms / 1000
    if given := lower.get("retry-after"):
        if (seconds := _number(given)) is not None:
            return seconds
        try:
            return max(0.0, parsedate_to_datetime(given).timestamp() - time.time())
        except ValueError:
            pass  # neither a number nor a date: as if it had not been sent
    if fault and fault.retry_after_s is not None:
        return fault.retry_after_s
    if fault and (found := re.search(r"(?:try again|retry) (?:in|after) ([0-9hms.]+)", fault.message, re.IGNORECASE)):
        return _duration(found.group(1))
    for name in ("x-ratelimit-reset-requests", "x-ratelimit-reset-tokens"):
        if (value := _duration(lower.get(name, ""))) is not None:
            return value
    return None


def _google_details(details: Any, fault: Fault) -> None:
    if not isinstance(details, list):
        return
    for item in cast("list[Any]", details):
        if not isinstance(item, dict):
            continue
        detail = cast("Json", item)
        kind = str(detail.get("@type", ""))
        if kind.endswith("RetryInfo"):
            fault.retry_after_s = _duration(str(detail.get("retryDelay", "")))
        elif kind.endswith("ErrorInfo") and isinstance(detail.get("reason"), str):
            fault.words.append(detail["reason"])
        elif kind.endswith("QuotaFailure"):
            fault.daily = fault.daily or "PerDay" in json.dumps(detail)


def _plain_fault(text: str) -> Fault:
    lowered = text[:2000].lower()
    if "<html" in lowered or "<!doctype" in lowered:
        title = re.search(r"<(?:title|h1)[^>]*>([^<]{1,200})", text[:20000], re.IGNORECASE)
        said = f": {' '.join(title.group(1).split())}" if title else ""
        return Fault(f"a web page instead of an API's answer{said}", html=True)
    return Fault(text, html=True)


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text else None
    except ValueError:
        return None
    return value if value is not None and 0 <= value < 1e7 else None


def _duration(text: str) -> float | None:
    """Seconds in `34.07s`, `6m0s`, `1h2m`, `20ms` or a bare number."""
    if (bare := _number(text)) is not None:
        return bare
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)(ms|h|m|s)", text)
    return sum(float(number) * units[unit] for number, unit in parts) if parts else None
