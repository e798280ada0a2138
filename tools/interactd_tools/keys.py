"""The idempotency key a call has when its caller gave none."""

from __future__ import annotations

import hashlib
import json

from interactd_tools.arguments.fields import Arguments
from interactd_tools.context import CallContext


def key_for(ctx: CallContext, tool: str, arguments: Arguments, given: str | None) -> str | None:
    """Return the caller's own key, else one of connection, request id and the call itself, else `None`.

    The shim sends a request again when the daemon died before it answered; the same request must then find the work
    it started. The call is part of the key because some clients count their request ids from one again: another call
    under an old id is new work, not a conflict.
    """
    if given is not None:
        return given
    if ctx.caller.connection is None or ctx.request_id is None:
        return None
    call = json.dumps([tool, arguments.model_dump(mode="json")], sort_keys=True, default=str)
    digest = hashlib.sha256(call.encode("utf-8", "replace")).hexdigest()[:16]
    return f"{ctx.caller.connection}:{json.dumps(ctx.request_id)}:{digest}"
