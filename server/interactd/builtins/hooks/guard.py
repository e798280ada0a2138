"""Asking the hooks. They fail closed: whatever is not a clear `allow` is a no, and the model is told why."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, cast
from urllib.parse import urlsplit

import httpx2

from interactd.builtins.hooks.rules import Hook, hooks_for
from interactd.builtins.port import Outcome
from interactd.errors import InteractdError
from interactd.nouns import Json
from interactd.sandbox.egress.log import Entry
from interactd.sandbox.environments_port import Workspace
from interactd.sandbox.port import Exit

log = logging.getLogger(__name__)

MAX_ANSWER: Final = 1_000_000
_REASON: Final = 1_000
_GRACE_S: Final = 5.0
# In the agent's folder, which is read-only, and without what a run may have left in its home or in /workspace:
# a hook must not be turned round by what it guards against.
_CLEAN: Final = (
    "env",
    "-u",
    "BASH_ENV",
    "-u",
    "ENV",
    "-u",
    "PYTHONPATH",
    "-u",
    "PYTHONSTARTUP",
    "HOME=/nonexistent",
    "PATH=/usr/local/bin:/usr/bin:/bin",
    "PYTHONNOUSERSITE=1",
    "WORKSPACE=/workspace",
    "bash",
    "--noprofile",
    "--norc",
    "-c",
)


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a hook said. `result` is a replacement for the tool's output."""

    allow: bool
    reason: str = ""
    result: str | None = None


class Guard:
    """The hooks of one run.

    Args:
        hooks: what `hooks.json` holds.
        workspace: where commands run.
        trusted: whether HTTP hooks may be asked: they are called from outside the sandbox, past the environment's
            network rules, so those of a project that somebody cloned are not.
    """

    def __init__(self, hooks: Mapping[str, Any], workspace: Workspace, *, trusted: bool) -> None:
        self._hooks = hooks
        self._workspace = workspace
        self._trusted = trusted

    def judges_output(self, name: str) -> bool:
        """Whether a hook may withhold or replace what this tool puts out."""
        return bool(self._hooks) and bool(list(hooks_for(self._hooks, "post_tool_execution", name)))

    async def before(self, name: str, arguments: Json) -> str | None:
        """Why the call is denied; `None` when it may be made."""
        if not self._hooks:
            return None
        for hook in hooks_for(self._hooks, "pre_tool_execution", name):
            ruling = await self._ask(hook, {"tool_call": {"name": name, "args": arguments}})
            if not ruling.allow:
                return f"A hook of this agent ({hook.group}) denied the call: {ruling.reason}"
        return None

    async def after(self, name: str, arguments: Json, outcome: Outcome) -> Outcome:
        """The outcome as the hooks leave it."""
        if not self._hooks:
            return outcome
        for hook in hooks_for(self._hooks, "post_tool_execution", name):
            payload: Json = {"tool_call": {"name": name, "args": arguments}, "result": outcome.result}
            if outcome.is_error:
                payload["error"] = outcome.result if isinstance(outcome.result, str) else "the call failed"
            ruling = await self._ask(hook, payload)
            if not ruling.allow:
                why = f"The call was made, but a hook of this agent ({hook.group}) withheld its output: {ruling.reason}"
                return Outcome(why, is_error=True)
            if ruling.result is not None:
                outcome = Outcome(ruling.result, outcome.is_error)
        return outcome

    async def _ask(self, hook: Hook, payload: Json) -> Ruling:
        if hook.problem:
            return Ruling(False, hook.problem)
        payload["environment_id"] = self._workspace.environment.id
        data = json.dumps(payload, ensure_ascii=False).encode("utf-8", "replace")
        try:
            async with asyncio.timeout(hook.timeout_s + _GRACE_S):
                ruling = await (self._command(hook, data) if hook.type == "command" else self._http(hook, data))
        except TimeoutError:
            ruling = _no(f"it did not answer within {hook.timeout_s:g} s")
        except InteractdError as error:
            ruling = _no(error.message)
        if not ruling.allow:
            log.info("hook %s denied a call: %s", hook.group, ruling.reason)
        return ruling

    async def _command(self, hook: Hook, data: bytes) -> Ruling:
        out, err = bytearray(), bytearray()
        ended: Exit | None = None
        script = f"cd /agent || exit 126\n{hook.command}"
        async with aclosing(
            cast("Any", self._workspace.exec([*_CLEAN, script], stdin=data, wall_s=hook.timeout_s))
        ) as events:
            async for event in events:
                if isinstance(event, Exit):
                    ended = event
                    continue
                kept = out if event.stream == "stdout" else err
                kept += event.data
                if len(kept) > MAX_ANSWER:
                    return _no("its answer is too long")
        if ended is None or ended.why != "exit":
            why = "timeout" if ended is None else ended.why
            return _no(f"it did not answer within {hook.timeout_s:g} s" if why == "timeout" else f"it ended by {why}")
        if ended.code != 0 or ended.signal:
            said = err.decode("utf-8", "replace").strip()[-_REASON:]
            return _no(f"it ended with exit code {ended.code}{f': {said}' if said else ''}")
        return _ruling(bytes(out))

    async def _http(self, hook: Hook, data: bytes) -> Ruling:
        log = self._workspace.requests
        entry = log.open("POST", *_place(hook.url))
        if not self._trusted:
            log.close(entry, "denied", "a project's http hooks are not asked")
            return _no(entry.reason)
        entry.bytes_up = len(data)
        try:
            return await self._asked(hook, data, entry)
        finally:
            # Left open, it did not come to an answer: too late, or cancelled.
            log.close(entry, "failed", "no answer in time")

    async def _asked(self, hook: Hook, data: bytes, entry: Entry) -> Ruling:
        log = self._workspace.requests
        headers = {"content-type": "application/json", **hook.headers}
        try:
            async with (
                httpx2.AsyncClient(timeout=hook.timeout_s, follow_redirects=False, trust_env=False) as client,
                client.stream("POST", hook.url, content=data, headers=headers) as answer,
            ):
                entry.status = answer.status_code
                if not 200 <= answer.status_code < 300:
                    log.close(entry)
                    return _no(f"it answered {answer.status_code}")
                body = bytearray()
                async for piece in answer.aiter_bytes():
                    body += piece
                    entry.bytes_down = len(body)
                    if len(body) > MAX_ANSWER:
                        log.close(entry)
                        return _no("its answer is too long")
        except httpx2.TimeoutException:
            return _no(f"it did not answer within {hook.timeout_s:g} s")
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            log.close(entry, "failed", f"it could not be asked: {type(error).__name__}")
            return _no(entry.reason)
        log.close(entry)
        return _ruling(bytes(body))


def _place(url: str) -> tuple[str, int]:
    """Return the host and port that a URL names; an empty host for what is none."""
    try:
        parts = urlsplit(url)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return "", 0


def _ruling(answer: bytes) -> Ruling:
    """Read `{"decision": "allow" | "deny", "reason"?, "result"?}`; anything else denies."""
    try:
        read: Any = json.loads(answer)
    except (ValueError, RecursionError):
        read = None
    if not isinstance(read, dict):
        return _no("it gave no decision")
    said = cast("Json", read)
    decision, reason, result = said.get("decision"), said.get("reason"), said.get("result")
    why = str(reason).strip()[:_REASON] if reason else ""
    if decision == "deny":
        return Ruling(False, why or "it gave no reason")
    if decision != "allow":
        return _no(f"its decision {decision!r:.80} is neither allow nor deny")
    if result is not None and not isinstance(result, str):
        result = json.dumps(result, ensure_ascii=False)
    return Ruling(True, why, result)


def _no(what: str) -> Ruling:
    return Ruling(False, f"the hook failed ({what}), and a hook that fails denies")
