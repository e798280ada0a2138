"""From our steps to what a small chat model can read: system, user and assistant text, nothing else.

The beginning of the prompt must be the same bytes on every turn: a cached prefix costs 0.2 s where a cold one of 960
tokens costs 15 s. So: no clock, no ids, tools sorted by name, history as it was.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from interactd.errors import InvalidArgument
from interactd.models.embedded.calls import agent, hints, protocol
from interactd.models.embedded.calls.progress import Turn, turn, without_dead_end
from interactd.models.embedded.settings import EmbeddedSettings
from interactd.models.port import ModelRequest
from interactd.nouns import Json, Step, text_content

SYSTEM = "You are a helpful assistant. Answer in one or two short sentences unless asked for more."
SYSTEM_WITH_TOOLS = "You are a helpful assistant."
TEMPERATURE = 0.3
TEMPERATURE_AGAIN = 0.8
TEMPERATURE_OF_ANSWERS = 0.0
_MEDIA = "image", "audio", "video", "document"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send: a request of plain text steps, and the grammar and tools if calls are possible."""

    request: ModelRequest
    grammar: str | None
    form: agent.Form | None


def plan(request: ModelRequest, settings: EmbeddedSettings) -> Plan:
    """Turn a request into one that any small chat model can be asked.

    Thinking levels and summaries are left out: these models do not think. Pictures in the newest input are refused;
    older ones (shown to another model earlier in the session) become a note.

    Raises:
        InvalidArgument: a picture, a tool that is no function, or `tool_choice: any` without tools.
    """
    choice: Literal["auto", "any", "none"] = request.config.tool_choice or "auto"
    if choice == "any" and not request.tools:
        raise InvalidArgument("tool_choice is `any`, but there are no tools.", field="tool_choice")
    protocol.check(request.tools)
    tools = [] if choice == "none" else sorted(request.tools, key=lambda tool: str(tool["name"]))
    working = agent.fits(tools)
    if working:
        system = agent.system(request.system_instruction, tools)
    elif tools:
        system = f"{request.system_instruction or SYSTEM_WITH_TOOLS}\n\n{protocol.describe(tools)}"
    else:
        system = request.system_instruction or SYSTEM
    now = turn(request.steps) if working else None
    config = replace(
        request.config,
        thinking_level=None,
        thinking_summaries=None,
        tool_choice=None,
        temperature=_temperature(request, now),
        # Another one for each call, or what failed is drawn again.
        seed=None if request.config.seed is None else request.config.seed + (len(now.calls) if now else 0),
        max_output_tokens=request.config.max_output_tokens or settings.max_output_tokens,
    )
    steps = _plain(without_dead_end(request.steps) if working else request.steps, tools, working=working)
    plain = replace(request, steps=steps, system_instruction=system, tools=[], config=config)
    if not tools or choice == "none":
        return Plan(plain, None, None)
    if working:
        return Plan(plain, agent.grammar(tools, choice, request.steps), agent.FORM)
    return Plan(plain, protocol.grammar(tools, choice), agent.json_form(tools))


def _temperature(request: ModelRequest, now: Turn | None) -> float:
    """The caller's, if any; after a call that failed or came to nothing a higher one, or a small model writes the same
    program again."""
    if request.config.temperature is not None:
        return request.config.temperature
    if now is not None and now.calls and now.sensible() == {"answer"}:
        # What is left is to say what was found out.
        return TEMPERATURE_OF_ANSWERS
    in_vain = now is not None and now.calls and (now.calls[-1].failed or now.in_vain)
    return TEMPERATURE_AGAIN if in_vain else TEMPERATURE


def _plain(steps: list[Step], tools: list[Json], *, working: bool) -> list[Step]:
    newest = next((n for n in range(len(steps), 0, -1) if steps[n - 1].type == "model_output"), 0)
    out: list[Step] = hints.examples() if working else []
    for number, step in enumerate(steps):
        match step.type:
            case "user_input":
                _add(out, "user_input", _content(step, refuse_media=number >= newest))
            case "function_result":
                text = agent.render_result(step, turn(steps[: number + 1])) if working else protocol.render_result(step)
                _add(out, "user_input", text)
            case "model_output":
                text = _content(step, refuse_media=False)
                _add(out, "model_output", protocol.ANSWER + text if tools and text else text)
            case "function_call":
                _add(out, "model_output", agent.render_call(step) if working else protocol.render_call(step, tools))
            case _:
                # Thoughts and other providers' own steps mean nothing to this model.
                continue
    return out


def _add(out: list[Step], kind: str, text: str) -> None:
    """Append text, joined to the step before if it is of the same side: templates want turns that alternate."""
    if not text:
        return
    if out and out[-1].type == kind:
        text = f"{out.pop().text}\n\n{text}"
    out.append(Step(kind, {"content": [text_content(text)]}))


def _content(step: Step, *, refuse_media: bool) -> str:
    parts: list[str] = []
    for part in cast("list[dict[str, Any]]", step.body.get("content") or []):
        kind = part.get("type", "text")
        if kind == "text":
            parts.append(str(part.get("text") or ""))
        elif refuse_media:
            what = kind if kind in _MEDIA else "such content"
            raise InvalidArgument(
                f"content: the embedded model reads text only, not {what}.",
                repair="Leave it out or describe it in words, or use a hosted model that reads it.",
                field="content",
            )
        else:
            parts.append(f"[{kind} left out]")
    return "\n".join(parts)
