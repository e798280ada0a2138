"""Building a responses request. Nothing is stored at the provider: the whole conversation goes along each time,
with its reasoning as encrypted items."""

from __future__ import annotations

from interactd.models.codecs.history import (
    EMPTY,
    Turn,
    WireIds,
    as_text,
    content_of,
    media_of,
    own_state,
    result_text,
    turns,
)
from interactd.models.codecs.responses.items import restore
from interactd.models.codecs.shapes import dump_arguments, obj
from interactd.models.codecs.thinking import ROUTER, responses_family
from interactd.models.port import ModelRequest
from interactd.nouns import Json, Step

_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def build(provider: str, request: ModelRequest, *, stream: bool) -> Json:
    """Return the JSON body for `POST .../responses`."""
    family = responses_family(request.model)
    reasons = bool(family.efforts or family.always)
    body: Json = {"model": request.model, "input": _input(provider, request, reasons), "store": False}
    if request.system_instruction:
        body["instructions"] = request.system_instruction
    if stream:
        body["stream"] = True
    if reasons:
        body["include"] = ["reasoning.encrypted_content"]
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        if choice := request.config.tool_choice:
            body["tool_choice"] = _CHOICES[choice]
    config = request.config
    effort = (ROUTER[0] if provider == "openrouter" else family).effort(config.thinking_level)
    reasoning: Json = {"effort": effort} if effort else {}
    if config.thinking_summaries == "auto" and reasons:
        reasoning["summary"] = "auto"
    if reasoning:
        body["reasoning"] = reasoning
    if config.max_output_tokens is not None:
        body["max_output_tokens"] = config.max_output_tokens
    # These models refuse sampling parameters while they reason.
    if not (effort or family.always):
        if config.temperature is not None:
            body["temperature"] = config.temperature
        if config.top_p is not None:
            body["top_p"] = config.top_p
    if provider == "openai" and request.cache_key:
        body["prompt_cache_key"] = request.cache_key[:64]
    return body


def _tool(tool: Json) -> Json:
    parameters = obj(tool.get("parameters")) or {"type": "object", "properties": {}}
    # Without this the API takes every schema for a strict one and refuses most.
    out: Json = {"type": "function", "name": tool["name"], "parameters": parameters, "strict": False}
    if tool.get("description"):
        out["description"] = tool["description"]
    return out


def _input(provider: str, request: ModelRequest, reasons: bool) -> list[Json]:
    out: list[Json] = []
    ids = WireIds()
    for turn in turns(request.steps):
        if turn.role == "model":
            out.extend(_model(provider, turn, ids, reasons))
            continue
        for step in turn.results:
            out.append(
                {
                    "type": "function_call_output",
                    "call_id": ids.result(step.body.get("call_id")),
                    "output": _output(step),
                }
            )
        content = [_part(part) for part in turn.content]
        content = [part for part in content if part.get("text") != ""]
        if content or not turn.results:
            out.append({"role": "user", "content": content or [{"type": "input_text", "text": EMPTY}]})
    return out


def _model(provider: str, turn: Turn, ids: WireIds, reasons: bool) -> list[Json]:
    """The items of a model turn. Items of this provider go back as they came, while their reasoning goes with
    them; without it, their ids would point at something the provider cannot find, so only the content goes."""
    out: list[Json] = []
    whole = reasons and all(_replayable(step, provider) for step in turn.steps if step.type == "thought")
    for step in turn.steps:
        state = own_state(step, provider)
        item = restore(step, obj((state or {}).get("item")))
        if step.type == "thought":
            if whole and item:
                out.append(_input_item(item))
        elif step.type == "function_call":
            call: Json = {"type": "function_call", "call_id": ids.call(step.body.get("id"))}
            call |= {"name": step.body.get("name") or "", "arguments": dump_arguments(step.body)}
            if whole:
                call |= {name: item[name] for name in ("id", "status", "namespace") if item.get(name)}
            out.append(call)
        elif item and item.get("type") == "message":
            out.append(_input_item(item) if whole else _plain(step, item))
        elif item:
            out.append(_input_item(item))
        elif state and "part_of" in state:
            continue
        elif said := as_text(step):
            out.append({"role": "assistant", "content": said})
    return out


def _replayable(step: Step, provider: str) -> bool:
    item = obj((own_state(step, provider) or {}).get("item"))
    return bool(item.get("encrypted_content") or item.get("content"))


def _input_item(item: Json) -> Json:
    # What the server adds about an item it keeps is not part of an item that is sent.
    return {name: value for name, value in item.items() if value is not None and name not in ("created_by",)}


def _plain(step: Step, item: Json) -> Json:
    out: Json = {"role": "assistant", "content": as_text(step)}
    if item.get("phase"):
        out["phase"] = item["phase"]
    return out


def _output(step: Step) -> str | list[Json]:
    parts = content_of(step.body.get("result"))
    if parts is None or all(part["type"] == "text" for part in parts):
        return result_text(step.body)
    return [_part(part) for part in parts]


def _part(part: Json) -> Json:
    if part.get("type") == "text":
        return {"type": "input_text", "text": part.get("text") or ""}
    media = media_of(part)
    if media.kind == "image":
        return {"type": "input_image", "image_url": media.url, "detail": "auto"}
    if media.kind == "document":
        if media.uri:
            return {"type": "input_file", "file_url": media.uri}
        name = "document." + (media.mime.rpartition("/")[2] or "pdf")
        return {"type": "input_file", "filename": name, "file_data": media.url}
    return {"type": "input_text", "text": media.omitted}
