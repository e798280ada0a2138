"""Building an Anthropic messages request."""

from __future__ import annotations

from interactd.models.codecs.history import (
    EARLIER,
    EMPTY,
    MEDIA,
    Turn,
    WireIds,
    as_text,
    calls,
    content_of,
    media_of,
    output_parts,
    own_state,
    result_text,
    turns,
)
from interactd.models.codecs.shapes import obj, objs, wire_arguments
from interactd.models.codecs.thinking import CLAUDE_BUDGETS, MIN_BUDGET, Claude, claude
from interactd.models.port import ModelRequest
from interactd.nouns import Json, Step, text_content

BINDING_BETA = "thinking-binding-controls-2026-08-01"
_CHOICES = {"auto": "auto", "any": "any", "none": "none"}
_CACHE: Json = {"type": "ephemeral"}


def build(provider: str, request: ModelRequest, *, stream: bool) -> Json:
    """Return the JSON body for `POST .../messages`."""
    kind = claude(request.model)
    conversation = turns(request.steps)
    messages = _messages(provider, conversation)
    body: Json = {"model": request.model, "max_tokens": _max_tokens(request, kind), "messages": messages}
    if request.system_instruction:
        body["system"] = [text_content(request.system_instruction)]
    if stream:
        body["stream"] = True
    _tools(body, request, conversation, kind)
    _thinking(body, provider, request, conversation, kind)
    _sampling(body, request, kind)
    if request.config.stop_sequences:
        # The API refuses sequences of white space.
        body["stop_sequences"] = [stop for stop in request.config.stop_sequences if stop.strip()]
    if request.cache_key:
        _mark_cache(body)
    return body


def betas(request: ModelRequest) -> list[str]:
    """The beta features that the body for this request uses."""
    return [BINDING_BETA] if claude(request.model).bound else []


def _max_tokens(request: ModelRequest, kind: Claude) -> int:
    if (wanted := request.config.max_output_tokens) is not None:
        return min(wanted, kind.max_output) if kind.name != "not a Claude" else wanted
    # The thinking counts towards the limit, so the deepest levels get more room.
    deep = kind.effort(request.config.thinking_level) in ("xhigh", "max") or (
        kind.mode == "budget" and request.config.thinking_level == "xhigh"
    )
    return min(kind.max_output, 2 * kind.default_output) if deep else kind.default_output


def _tools(body: Json, request: ModelRequest, conversation: list[Turn], kind: Claude) -> None:
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        if choice := request.config.tool_choice:
            forced = choice == "any" and not kind.forced_tools
            body["tool_choice"] = {"type": "auto" if forced else _CHOICES[choice]}
        return
    # A conversation with calls in it must declare them, also when no more are wanted.
    names = sorted({str(call.body.get("name")) for turn in conversation for call in calls(turn)})
    if names:
        body["tools"] = [{"name": name, "input_schema": {"type": "object"}} for name in names]
        body["tool_choice"] = {"type": "none"}


def _tool(tool: Json) -> Json:
    schema = obj(tool.get("parameters")) or {"type": "object", "properties": {}}
    out: Json = {"name": tool["name"], "input_schema": schema if schema.get("type") else {"type": "object", **schema}}
    if tool.get("description"):
        out["description"] = tool["description"]
    return out


def _thinking(body: Json, provider: str, request: ModelRequest, conversation: list[Turn], kind: Claude) -> None:
    config = request.config
    display = {"auto": "summarized", "none": "omitted"}.get(config.thinking_summaries or "")
    if kind.mode == "adaptive":
        effort = kind.effort(config.thinking_level)
        if effort:
            body["output_config"] = {"effort": effort}
        if effort or kind.bound or (display and kind.always):
            thinking: Json = {"type": "adaptive"}
            if display:
                thinking["display"] = display
            if kind.bound:
                # History may have been trimmed, or the tools changed: then its thoughts are dropped, not the turn.
                thinking["block_binding"] = {"prefix_mismatch_behavior": "drop_block"}
            body["thinking"] = thinking
    elif kind.mode == "budget" and config.thinking_level is not None:
        room = body["max_tokens"]
        budget = min(CLAUDE_BUDGETS[config.thinking_level], max(MIN_BUDGET, room * 4 // 5))
        forced = obj(body.get("tool_choice")).get("type") == "any"
        if room > MIN_BUDGET and budget < room and not forced and _may_think(provider, conversation):
            body["thinking"] = {"type": "enabled", "budget_tokens": budget}


def _may_think(provider: str, conversation: list[Turn]) -> bool:
    """Whether a model with a thinking budget accepts this history: a turn in the middle of its calls must begin with
    its own thinking, which another provider's turn cannot."""
    if len(conversation) < 2 or not conversation[-1].results or conversation[-1].inputs:
        return True
    first = next((step for step in conversation[-2].steps), None)
    return first is not None and first.type == "thought" and own_state(first, provider) is not None


def _sampling(body: Json, request: ModelRequest, kind: Claude) -> None:
    config = request.config
    if not kind.sampling or "thinking" in body:
        return
    if config.temperature is not None:
        body["temperature"] = min(config.temperature, 1.0)
    elif config.top_p is not None:
        # From Claude 4.1 on only one of the two is accepted.
        body["top_p"] = config.top_p


def _mark_cache(body: Json) -> None:
    """Two cache breakpoints: after the system prompt, and at the end of what has been said so far."""
    if "system" in body:
        body["system"][-1]["cache_control"] = _CACHE
    last: Json = body["messages"][-1]["content"][-1]
    if last.get("type") not in ("thinking", "redacted_thinking"):
        body["messages"][-1]["content"][-1] = {**last, "cache_control": _CACHE}


def _messages(provider: str, conversation: list[Turn]) -> list[Json]:
    out: list[Json] = []
    ids = WireIds(prefix="toolu_")
    for turn in conversation:
        if turn.role == "model":
            if not out:
                out.append({"role": "user", "content": [text_content(EARLIER)]})
            blocks = _assistant(provider, turn, ids)
            role = "assistant"
        else:
            blocks = [_result(step, ids) for step in turn.results] + [
                block for part in turn.content if (block := _part(part)) is not None
            ]
            blocks = blocks or [text_content(EMPTY)]
            role = "user"
        if not blocks:
            continue
        if out and out[-1]["role"] == role:
            out[-1]["content"].extend(blocks)
        else:
            out.append({"role": role, "content": blocks})
    return out or [{"role": "user", "content": [text_content(EMPTY)]}]


def _assistant(provider: str, turn: Turn, ids: WireIds) -> list[Json]:
    out: list[Json] = []
    for step in turn.steps:
        state = own_state(step, provider) or {}
        if step.type == "function_call":
            block: Json = {"type": "tool_use", "id": ids.call(step.body.get("id")), "name": step.body.get("name") or ""}
            out.append({**block, "input": wire_arguments(step.body), **state.get("block", {})})
        elif step.type == "model_output" and state.get("blocks"):
            out.extend(objs(state["blocks"]))
        elif step.type == "model_output":
            out.extend(text_content(part["text"]) for part in output_parts(step) if (part.get("text") or "").strip())
        elif state.get("block"):
            out.append(state["block"])
        elif said := as_text(step):
            out.append(text_content(said))
    return out


def _result(step: Step, ids: WireIds) -> Json:
    block: Json = {"type": "tool_result", "tool_use_id": ids.result(step.body.get("call_id"))}
    parts = content_of(step.body.get("result"))
    if parts is not None:
        inner = [item for part in parts if (item := _part(part)) is not None]
        block["content"] = inner or EMPTY
    else:
        block["content"] = result_text({**step.body, "is_error": False}) or EMPTY
    if step.body.get("is_error"):
        block["is_error"] = True
    return block


def _part(part: Json) -> Json | None:
    if part.get("type") not in MEDIA:
        said = part.get("text") or ""
        return text_content(said) if said.strip() else None
    media = media_of(part)
    source: Json = {"type": "url", "url": media.uri}
    if media.data is not None:
        source = {"type": "base64", "media_type": media.mime, "data": media.data}
    if media.kind == "image":
        return {"type": "image", "source": source}
    if media.kind == "document" and (media.mime == "application/pdf" or media.uri):
        return {"type": "document", "source": source}
    return text_content(media.omitted)
