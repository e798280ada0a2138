"""A request that is not let out, and how to say so to the agent that made it."""

from __future__ import annotations

from interactd.sandbox.egress.policy.hosts import printable


class Refused(Exception):
    """This request does not go out. `reason` is one clause, `hint` one sentence on what would allow it.

    Both are shown inside the sandbox and written to the run's log, so neither may hold a secret.
    """

    def __init__(self, reason: str, *, hint: str = "", status: int = 403) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.status = status


class Unreachable(Refused):
    """The request was allowed and the other side could not be had: no such name, no answer, a bad certificate."""

    def __init__(self, reason: str, *, hint: str = "", status: int = 502) -> None:
        super().__init__(reason, hint=hint, status=status)


def answer(refused: Refused, *, keep_alive: bool = False) -> bytes:
    """Return the whole HTTP answer. The reason is in the status line too: of a tunnel most clients show only that."""
    phrase = printable(refused.reason, 200)
    verb = "could not be made" if isinstance(refused, Unreachable) else "was refused"
    text = f"interactd: this request {verb}: {printable(refused.reason, 500)}."
    if refused.hint:
        text += f" {printable(refused.hint, 1000)}"
    body = (text + "\n").encode()
    head = (
        f"HTTP/1.1 {refused.status} {phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nX-Interactd-Egress: denied\r\n"
        f"Connection: {'keep-alive' if keep_alive else 'close'}\r\n\r\n"
    )
    return head.encode("ascii") + body
