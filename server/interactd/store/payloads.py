"""What a webhook is told: thin, the same for every backend."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from interactd.nouns import Json


def payload_of(event: str, now: float, data: Json, user_metadata: Json | None) -> str:
    """The thin body that is signed and sent: what happened and to what, not what was said."""
    stamp = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    body: dict[str, Any] = {"type": event, "version": "v1", "timestamp": stamp, "data": data}
    if user_metadata is not None:
        body["user_metadata"] = user_metadata
    # ASCII, so that the bytes that are signed are those that are sent, whatever a provider's error message held.
    return json.dumps(body, separators=(",", ":"))
