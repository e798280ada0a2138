"""Standard Webhooks signatures (github.com/standard-webhooks/standard-webhooks), scheme v1."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence

from interactd.sandbox.credentials.kinds import Secret

PREFIX = "whsec_"
_BYTES = 32


def new_secret() -> Secret:
    """Return a fresh signing secret, `whsec_` and 32 bytes in base64."""
    return Secret(PREFIX + base64.b64encode(secrets.token_bytes(_BYTES)).decode())


def truncated(secret: Secret) -> str:
    """Return what a list may show: enough to tell two apart."""
    return f"{PREFIX}...{secret.reveal()[-5:]}"


def sign(secret: Secret, message_id: str, timestamp: int, body: bytes) -> str:
    """Return `v1,` and the signature of one secret over id, time and body."""
    key = base64.b64decode(secret.reveal().removeprefix(PREFIX))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def headers(signing: Sequence[Secret], message_id: str, timestamp: int, body: bytes) -> list[tuple[str, str]]:
    """Return the three headers; several secrets (while one is being replaced) give several signatures."""
    return [
        ("webhook-id", message_id),
        ("webhook-timestamp", str(timestamp)),
        ("webhook-signature", " ".join(sign(secret, message_id, timestamp, body) for secret in signing)),
    ]
