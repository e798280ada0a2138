"""The one way an unexpected exception is told: logged whole with a reference, answered without its insides."""

from __future__ import annotations

import logging
import secrets
from typing import ClassVar

from interactd.errors import InteractdError

logger = logging.getLogger(__name__)


class Internal(InteractdError):
    """A fault of ours. `ref` finds it in the log."""

    code: ClassVar[str] = "internal"


def internal(error: BaseException, doing: str) -> Internal:
    """Log `error` with its trace and return what the caller may see of it.

    Args:
        error: what was raised.
        doing: what was being done, for the log; must hold nothing the caller sent.
    """
    ref = secrets.token_hex(4)
    logger.error("unexpected error, ref %s, in %s", ref, doing, exc_info=error)
    return Internal(
        f"something went wrong inside interactd (ref {ref})",
        repair="Trying again may help. If it stays, the daemon's log has the details under that reference.",
        ref=ref,
    )


def sentence(error: InteractdError) -> str:
    """Return `code: what was wrong. What to do next.`"""
    message = error.message if error.message.endswith((".", "!", "?")) else f"{error.message}."
    return f"{error.code}: {message} {error.repair}" if error.repair else f"{error.code}: {message}"
