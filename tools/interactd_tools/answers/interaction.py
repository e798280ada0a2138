"""How one interaction reads: its status, what the model said, what it waits for, and the next call."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, cast

from interactd.engine.port import Result
from interactd.nouns import Interaction, Json, Session, Step
from interactd.sandbox.environments_port import Artifact
from interactd_tools.answers import artifacts as files
from interactd_tools.answers import money
from interactd_tools.answers import requests as network
from interactd_tools.answers.printed import tail
from interactd_tools.answers.progress import doing, figures, is_agents, progress, sandbox_label, steps_taken
from interactd_tools.answers.text import Piece, answer, call, compact, cut, one_line, plural, span, usage_line
from interactd_tools.context import Image, Link, ToolResult

MAX_IMAGE_CHARACTERS = 700_000
"""Of base64 in one result: a host refuses a result of more than a megabyte."""
_INPUT = "..."
_NEEDS_ANOTHER_MODEL = frozenset(
    ("key_refused", "missing_key", "quota_exceeded", "unknown_model", "unknown_price", "not_set_up")
)
_NEEDS_OTHER_WORDS = frozenset(("content_blocked", "provider_rejected", "invalid_argument"))


@dataclass(slots=True)
class View:
    """What of the interaction is asked for."""

    max_tokens: int
    offset: int | None = None
    """Where the caller asked to read on from."""
    skip: int = 0
    """What the caller has read already: not shown again."""
    detailed: bool = False
    unread: str = ""
    """A line about other results that nobody has read yet."""
    note: str = ""
    artifacts: list[Artifact] = field(default_factory=list[Artifact])
    """What an agent's finished turn left."""
    requests: list[Json] = field(default_factory=list[Json])
    """What it asked of the network."""


def show(result: Result, view: View) -> ToolResult:
    """Return the answer about an interaction: status line, content, usage, next call."""
    one = result.interaction
    piece = cut(body(result, detailed=view.detailed), view.max_tokens, view.offset or view.skip)
    # A text that is still growing is only read when asked for by offset: it would be sent twice.
    shown = one.status not in ("queued", "in_progress") or view.offset is not None
    following = _rest(one.id, piece, detailed=view.detailed) if shown and piece.cut else _next(result, view)
    images, unsent = _images(result.steps) if shown and not view.offset else ([], "")
    text = answer(
        _head(result),
        view.note,
        _trouble(result),
        tail(result.printed),
        piece.text if shown else "",
        _cut_line(piece, following, view) if shown else "",
        unsent,
        files.brief(view.artifacts) if not view.offset else "",
        network.brief(view.requests) if not view.offset else "",
        "\n".join(
            line
            for line in (_figures(result), _budgets(result), _place(one), view.unread, f"Next: {_then(result, view)}")
            if line
        ),
    )
    links = [Link(f"interactd://interactions/{one.id}", f"interaction {one.id}")] if shown and piece.cut else []
    fields = _fields(result, piece if shown else None, following)
    if view.artifacts:
        fields["artifacts"] = [files.facts(one) for one in view.artifacts[: files.FEW]]
    return ToolResult(text, fields, images=images, links=links)


def body(result: Result, *, detailed: bool = False) -> str:
    """Return everything an offset counts in: the model's text, then the calls that wait for an answer."""
    if detailed:
        return render(result.steps, result.partial_text)
    parts = [step.text for step in _answers(result)] + [result.partial_text]
    if result.interaction.status == "requires_action" and result.waiting_for:
        parts.append(_waiting(result.waiting_for))
    return "\n\n".join(part for part in parts if part)


def _answers(result: Result) -> list[Step]:
    """The steps whose text is the answer: all a model said, but of an agent only what it said after its last call."""
    outputs = [(at, step) for at, step in enumerate(result.steps) if step.type == "model_output" and step.text]
    if not is_agents(result.interaction):
        return [step for _, step in outputs]
    calls = [at for at, step in enumerate(result.steps) if step.type.endswith(("_call", "_result"))]
    last = [step for at, step in outputs if not calls or at > calls[-1]]
    return last or ([outputs[-1][1]] if outputs and not result.partial_text else [])


def read_already(result: Result, answered: set[str]) -> int:
    """Return the length of the text that came before the results of these calls: its caller has read it."""
    given = [i for i, step in enumerate(result.steps) if step.body.get("call_id") in answered]
    if not given or is_agents(result.interaction):
        return 0
    before = [step.text for step in result.steps[: given[-1]] if step.type == "model_output" and step.text]
    return len("\n\n".join(before)) + 2 if before else 0


def render(steps: list[Step], partial: str = "") -> str:
    """Return every step as text: who said or did what."""
    blocks = [_step(step) for step in steps]
    if partial:
        blocks.append(f"[model, still writing]\n{partial}")
    return "\n\n".join(blocks)


def _step(step: Step) -> str:
    fields = step.body
    match step.type:
        case "user_input":
            return f"[user]\n{_said(step)}"
        case "model_output":
            return f"[model]\n{_said(step)}"
        case "thought":
            return f"[thought]\n{step.text or '(the provider kept it to itself)'}"
        case "function_call":
            return f"[calls {fields.get('name')}, call_id={fields.get('id')}]\n{compact(fields.get('arguments'))}"
        case "function_result":
            kind = "error" if fields.get("is_error") else "result"
            value = fields.get("result")
            said = value if isinstance(value, str) else compact(value)
            return f"[{kind} of {fields.get('name') or 'call'}, call_id={fields.get('call_id')}]\n{said}"
        case "code_execution_call":
            code: Json = fields.get("arguments") or {}
            return f"[runs {code.get('language') or 'code'}, call_id={fields.get('id')}]\n{code.get('code') or ''}"
        case "code_execution_result":
            kind = "error" if fields.get("is_error") else "output"
            value = fields.get("result")
            return f"[{kind}, call_id={fields.get('call_id')}]\n{value if isinstance(value, str) else compact(value)}"
        case _:
            return f"[{step.type}]\n{compact(fields)}"


def _said(step: Step) -> str:
    parts: list[Json] = step.body.get("content") or []
    return "\n".join(
        part.get("text") or "" if part.get("type") == "text" else f"({part.get('type')}: {_where(part)})"
        for part in parts
    )


def _where(part: Json) -> str:
    size = f", {len(part['data']) * 3 // 4:,} bytes" if isinstance(part.get("data"), str) else ""
    return f"{part.get('uri') or part.get('mime_type') or 'no type'}{size}"


def _head(result: Result) -> str:
    one = result.interaction
    agent = f" · agent {one.agent}" if one.agent else ""
    model = f" · model {one.model}" if one.model else ""
    return f"{one.status} · interaction {one.id} · session {one.session_id}{agent}{model}"


def _trouble(result: Result) -> str:
    """One or two sentences where the status alone does not say what to make of it."""
    one = result.interaction
    so_far = f"{len(result.partial_text) + sum(len(s.text) for s in result.steps if s.type == 'model_output'):,}"
    match one.status:
        case "queued":
            why = f": {result.queue_reason}" if result.queue_reason else ""
            return f"It waits{why}. It starts by itself: do not send it again."
        case "in_progress":
            took = span(time.time() - (one.started_at or one.created_at))
            if result.queue_reason:
                return f"It goes on soon: {result.queue_reason}. Do not send it again."
            if is_agents(one):
                now = progress(result.steps, writing=bool(result.partial_text), placed=one.isolation is not None)
                return f"Running for {took}, {now}\nIt goes on by itself, also without you: do not send it again."
            return f"Running for {took}, {so_far} characters so far. It goes on by itself: do not send it again."
        case "failed":
            error = one.error or {}
            sentence = f"{error.get('code', 'internal')}: {error.get('message', 'no reason was recorded')}"
            return one_line(f"{sentence.rstrip('.')}. {error.get('repair') or ''}", 1000)
        case "cancelled":
            return "It was cancelled; what it had made is kept."
        case "incomplete":
            if one.finish_reason in ("length", "max_tokens", "MAX_TOKENS"):
                return "The model stopped at its output limit: this is not the whole answer."
            why = (one.error or {}).get("message") or f"finish reason {one.finish_reason or 'unknown'}"
            return one_line(f"The answer is not complete: {str(why).rstrip('.')}. {_repair(one)}", 700).strip()
        case "budget_exceeded":
            why = (one.error or {}).get("message") or "its budget was used up"
            return one_line(
                f"It stopped: {str(why).rstrip('.')}. What it had made is kept. {_repair(one)}", 700
            ).strip()
        case "requires_action" if questions := [one for one in result.waiting_for if is_question(one)]:
            return _until(questions)
        case "completed" if not body(result):
            return "The model ended its turn without any text."
        case _:
            return ""


def _repair(one: Interaction) -> str:
    # Of a model's own limit the next call, which is shown anyway, says it all.
    return str((one.error or {}).get("repair") or "") if is_agents(one) or one.status == "budget_exceeded" else ""


def _waiting(calls: list[Json]) -> str:
    asked = [one for one in calls if is_question(one)]
    plain = [one for one in calls if not is_question(one)]
    lines = [f"Waiting for {plural(len(plain), 'function result')}:"] if plain else []
    lines += [
        f"- {one.get('name')}, call_id={compact(one.get('id'))}: {compact(one.get('arguments'))}" for one in plain
    ]
    if asked:
        lines.append(
            f"Waiting for a decision on {plural(len(asked), 'call')}. Ask the user, unless they decided already:"
        )
    for one in asked:
        question = one_line(str(one.get("question") or f"May it go on with {doing(one)}?"), 500)
        lines.append(
            f"- {question} call_id={compact(one.get('id'))}, {one.get('name')}: {compact(one.get('arguments'))}"
        )
    if asked:
        lines.append('Answer each with result "allow" or "deny", or {"decision": "deny", "reason": "..."}.')
    if any(one["kind"] == "approval" for one in asked):
        lines.append('{"decision": "allow", "scope": "run"} (or "session") is for all further calls of that tool too.')
    return "\n".join(lines)


def _until(questions: list[Json]) -> str:
    """Say what is waited for, until when, and what holds then."""
    names = ", ".join(dict.fromkeys(str(one.get("name")) for one in questions))
    text = f"It waits for {plural(len(questions), 'decision')} of the user's about {names}"
    times = [str(one["deadline"]) for one in questions if one.get("deadline")]
    if not times:
        return f"{text}."
    first = min(times)
    default = next(one.get("default", "deny") for one in questions if one.get("deadline") == first)
    return f"{text} until {first}; without an answer by then: {default}."


def is_question(waiting: Json) -> bool:
    """Whether a call waits for a decision rather than for a result."""
    return waiting.get("kind") in ("approval", "replay")


def _cut_line(piece: Piece, rest: Json, view: View) -> str:
    if piece.cut:
        return f"[cut: {piece.more_tokens:,} more tokens; {_write(rest)}]"
    return f"[nothing after offset {piece.start}]" if view.offset and not piece.text else ""


def _rest(interaction_id: str, piece: Piece, *, detailed: bool) -> Json:
    arguments: Json = {"interaction_id": interaction_id, "offset": piece.end}
    if detailed:
        arguments["response_format"] = "detailed"
    return {"tool": "get_interaction", "arguments": arguments}


def _figures(result: Result) -> str:
    one = result.interaction
    if not one.terminal and one.status != "requires_action":
        return ""
    known = one.usage is not None or one.status in ("completed", "requires_action", "incomplete")
    line = usage_line(one.usage) if known else "Ended"
    if known and result.cost is not None:
        line += f" · {money.usd(result.cost)}"
    if one.finished_at is not None:
        line += f" {'·' if known else 'after'} {span(one.finished_at - (one.started_at or one.created_at))}"
    if is_agents(one) and (taken := figures(result.steps)):
        line += f" · {taken}"
    return line if known or one.finished_at is not None else ""


def _budgets(result: Result) -> str:
    one = result.interaction
    return money.budgets(result.cost) if one.terminal or one.status == "requires_action" else ""


def _place(one: Interaction) -> str:
    """Where an agent worked, and how well that was closed off."""
    if not is_agents(one) or not one.environment_id:
        return ""
    label = sandbox_label(one.isolation)
    return f"Environment: {one.environment_id}" + (f" · sandbox {label}" if label else "")


def _then(result: Result, view: View) -> str:
    written = _write(_next(result, view))
    one = result.interaction
    if one.status in ("queued", "in_progress") and is_agents(one):
        return f"{written}, or {call('cancel_interaction', {'interaction_id': one.id})}"
    if not one.terminal or not view.artifacts:
        return written
    return f"{written}, or {_write(_fetch(one, view) if one.status == 'failed' else _go_on(one, result.session))}"


def _next(result: Result, view: View) -> Json:
    one = result.interaction
    if one.status in ("queued", "in_progress"):
        return {"tool": "get_interaction", "arguments": {"interaction_id": one.id, "wait_s": 30}}
    if one.status == "requires_action":
        results = [
            {"call_id": waiting.get("id"), "result": "allow" if is_question(waiting) else _INPUT}
            for waiting in result.waiting_for
        ]
        return {"tool": "respond", "arguments": {"interaction_id": one.id, "results": results}}
    if one.status == "failed":
        return _after_failure(one)
    return _fetch(one, view) if view.artifacts else _go_on(one, result.session)


def _fetch(one: Interaction, view: View) -> Json:
    arguments: Json = {"interaction_id": one.id}
    if len(view.artifacts) == 1:
        arguments["name"] = files.named(view.artifacts[0])
    return {"tool": "fetch_artifacts", "arguments": arguments}


def _go_on(one: Interaction, session: Session) -> Json:
    if session.state != "active":
        return {"tool": "create_session", "arguments": {}}
    if one.status == "budget_exceeded" and (following := (one.error or {}).get("next")):
        return following
    goes_on = {"incomplete": "Go on.", "budget_exceeded": "Go on."}.get(one.status, _INPUT)
    return {"tool": "send_turn", "arguments": {"session_id": one.session_id, "input": goes_on}}


def _after_failure(one: Interaction) -> Json:
    # Whoever takes the next call by its word must not be sent into the same wall, at the same price.
    code = (one.error or {}).get("code")
    if code in _NEEDS_ANOTHER_MODEL:
        return {"tool": "list_agents", "arguments": {}}
    if code == "context_overflow":
        return {"tool": "fork_session", "arguments": {"session_id": one.session_id, "at": "<an earlier turn>"}}
    text = "<another input>" if code in _NEEDS_OTHER_WORDS else "<the same input>"
    return {"tool": "send_turn", "arguments": {"session_id": one.session_id, "input": text}}


def _write(following: Json) -> str:
    return call(following["tool"], following["arguments"])


def _fields(result: Result, piece: Piece | None, following: Json) -> dict[str, Any]:
    one = result.interaction
    fields: dict[str, Any] = {"session_id": one.session_id, "interaction_id": one.id, "status": one.status}
    if one.agent:
        fields["agent"] = one.agent
    if one.model:
        fields["model"] = one.model
    if one.environment_id:
        fields["environment_id"] = one.environment_id
    if label := sandbox_label(one.isolation):
        fields["sandbox"] = label
    if one.status == "in_progress" and is_agents(one):
        fields["steps"] = steps_taken(result.steps)
    if one.usage is not None and one.usage.as_dict():
        fields["usage"] = one.usage.as_dict()
    if result.cost is not None and (one.terminal or one.status == "requires_action"):
        fields["cost_usd"] = result.cost["usd"]
        if result.cost["budgets"]:
            fields["budgets"] = [
                {"scope": each["scope"], "limit": each["limit"], "left": each["left"]}
                for each in result.cost["budgets"]
            ]
    if one.finished_at is not None:
        fields["seconds"] = round(one.finished_at - (one.started_at or one.created_at), 2)
    if one.status in ("failed", "budget_exceeded"):
        fields["error"] = (one.error or {}).get("code", "internal")
    if result.waiting_for and one.status == "requires_action":
        fields["calls"] = [
            {
                "call_id": c.get("id"),
                "name": c.get("name"),
                **{name: c[name] for name in ("kind", "deadline", "default") if is_question(c) and name in c},
            }
            for c in result.waiting_for
        ]
    if result.queue_reason:
        fields["queue_reason"] = result.queue_reason
    if result.replayed:
        fields["replayed"] = True
    if piece is not None:
        fields["offset"], fields["next_offset"] = piece.start, piece.end if piece.cut else None
        if piece.cut:
            fields["more_tokens"] = piece.more_tokens
    fields["next"] = following
    return fields


def _images(steps: list[Step]) -> tuple[list[Image], str]:
    """Return the images the model made, and a line about those that are too large to send."""
    images: list[Image] = []
    used = unsent = 0
    for step in steps:
        for part in cast("list[Json]", step.body.get("content") or []) if step.type == "model_output" else []:
            if part.get("type") != "image":
                continue
            data = part.get("data")
            if not isinstance(data, str) or used + len(data) > MAX_IMAGE_CHARACTERS:
                unsent += 1
                continue
            used += len(data)
            images.append(Image(data, str(part.get("mime_type") or "image/png")))
    return images, f"[{plural(unsent, 'image')} too large or not here to be shown]" if unsent else ""
