"""Every failure that a caller can meet: a stable code, a sentence, and what to call next.

Faces translate these to their wire; they never invent errors of their own. `fields` carries the ids and
values a program would want; `repair` is one sentence that says what to do next, written for the model or
person that must act on it.
"""

from __future__ import annotations

from typing import Any, ClassVar


class InteractdError(Exception):
    """Base of all errors. `str(error)` is the sentence without the repair."""

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, repair: str | None = None, **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.repair = repair
        self.fields = fields

    def as_dict(self) -> dict[str, Any]:
        """Return `{code, message, repair?, **fields}`; JSON-safe when the fields are."""
        out: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.repair:
            out["repair"] = self.repair
        return {**out, **self.fields}


class InvalidArgument(InteractdError):
    """A field of the call is wrong; `field` names it."""

    code = "invalid_argument"
    http_status = 400


class NotFound(InteractdError):
    """No such id. `kind` and `id` are in the fields."""

    code = "not_found"
    http_status = 404


class AmbiguousId(InteractdError):
    """An id prefix that fits more than one thing; `candidates` lists some."""

    code = "ambiguous_id"
    http_status = 400


class Expired(InteractdError):
    """The thing was here and its TTL has passed."""

    code = "expired"
    http_status = 404


class Deleted(InteractdError):
    """The thing was here and somebody deleted it; `receipt` says when."""

    code = "deleted"
    http_status = 404


class Conflict(InteractdError):
    """The call is well formed but cannot run now: a turn is under way, or a key was used for another body."""

    code = "conflict"
    http_status = 409


class UnknownModel(InteractdError):
    """No configured provider knows this model name; `suggestions` may help."""

    code = "unknown_model"
    http_status = 404


class MissingKey(InteractdError):
    """The provider needs an API key and none was found."""

    code = "missing_key"
    http_status = 401


class KeyRefused(InteractdError):
    """The provider refused the API key."""

    code = "key_refused"
    http_status = 401


class RateLimited(InteractdError):
    """The provider asked us to slow down; `retry_after_s` when it said for how long."""

    code = "rate_limited"
    http_status = 429


class QuotaExceeded(InteractdError):
    """The provider says that the account is out of money or quota: waiting does not help."""

    code = "quota_exceeded"
    http_status = 402


class BudgetExceeded(InteractdError):
    """A budget does not cover what comes next; `budget` says whose, in what, its limit and what was spent."""

    code = "budget_exceeded"
    http_status = 402


class UnknownPrice(InteractdError):
    """There is a budget in money, and nobody knows what the model costs; `model` is in the fields."""

    code = "unknown_price"
    http_status = 402


class ProviderUnavailable(InteractdError):
    """The provider could not be reached, or answered with a server error."""

    code = "provider_unavailable"
    http_status = 502


class ProviderTimeout(InteractdError):
    """The provider did not answer, or stopped sending, within the limit."""

    code = "provider_timeout"
    http_status = 504


class ProviderRejected(InteractdError):
    """The provider refused the request as malformed; its own words are in the message."""

    code = "provider_rejected"
    http_status = 400


class ContextOverflow(InteractdError):
    """The conversation is longer than the model's window."""

    code = "context_overflow"
    http_status = 400


class StreamTruncated(InteractdError):
    """The provider's stream ended before it said that it was done."""

    code = "stream_truncated"
    http_status = 502


class StreamMalformed(InteractdError):
    """The provider sent something that is not its own wire format."""

    code = "stream_malformed"
    http_status = 502


class ContentBlocked(InteractdError):
    """The provider's safety system withheld the answer."""

    code = "content_blocked"
    http_status = 400


class UnknownFinish(InteractdError):
    """The provider ended with a reason we do not know; what came is kept, and it is not called complete."""

    code = "unknown_finish_reason"
    http_status = 502


class NotSetUp(InteractdError):
    """The embedded model's weights or runtime are not on this machine yet."""

    code = "not_set_up"
    http_status = 503


class Overloaded(InteractdError):
    """Too many calls at once; nothing was started."""

    code = "overloaded"
    http_status = 503


class StorageFull(InteractdError):
    """The disk is full: new work is refused, nothing that was kept is lost."""

    code = "storage_full"
    http_status = 507


class StorageError(InteractdError):
    """The local store cannot be read or written."""

    code = "storage_error"
    http_status = 500


class Fenced(InteractdError):
    """This runner lost its claim on the interaction to a newer one; it must stop and write nothing."""

    code = "fenced"
    http_status = 409


class DaemonUnavailable(InteractdError):
    """No daemon answers and none could be started."""

    code = "daemon_unavailable"
    http_status = 503


class ConfigError(InteractdError):
    """The configuration file or an environment variable is wrong; file, line and field are in the message."""

    code = "config_error"
    http_status = 500


class SandboxUnavailable(InteractdError):
    """No launcher that is good enough is usable on this machine."""

    code = "sandbox_unavailable"
    http_status = 503


class SandboxFailed(InteractdError):
    """A sandbox did not start, or died."""

    code = "sandbox_failed"
    http_status = 500


class NetworkRefused(InteractdError):
    """The environment's policy does not let this request out; `url` or `host` is in the fields."""

    code = "network_refused"
    http_status = 403


class BadManifest(InteractdError):
    """An agent's folder is wrong; file, line and field are in the message."""

    code = "bad_manifest"
    http_status = 400
