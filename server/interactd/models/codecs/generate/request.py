"""Building a Gemini generateContent request."""

from __future__ import annotations

import json
import re

from interactd.models.codecs.history import (
    EARLIER,
    EMPTY,
    MEDIA,
    Turn,
    WireIds,
    as_text,
    content_of,
    media_of,
    own_state,
    result_media,
    turns,
)
from interactd.models.codecs.shapes import obj, objs, wire_arguments
from interactd.models.codecs.thinking import GEMINI_BUDGETS, base_name, gemini
from interactd.models.port import ModelRequest
from interactd.nouns import Json, Step

_MODES = {"auto": "AUTO", "any": "ANY", "none": "NONE"}
# Documented by Google for calls that another model made: Gemini 3 refuses a call without a signature.
UNSIGNED = "skip_thought_signature_validator"


def build(provider: str, request: ModelRequest) -> Json:
    """Return the JSON body for `:generateContent` and `:streamGenerateContent`."""
    contents = _contents(provider, request)
    body: Json = {"contents": contents}
    if request.system_instruction:
        if base_name(request.model).startswith("gemma"):
            # Gemma models take no system instruction of its own.
            first = contents[0]["parts"]
            first.insert(0, {"text": request.system_instruction})
        else:
            body["systemInstruction"] = {"parts": [{"text": request.system_instruction}]}
    if request.tools:
        body["tools"] = [{"functionDeclarations": [_tool(tool) for tool in request.tools]}]
        if choice := request.config.tool_choice:
            body["toolConfig"] = {"functionCallingConfig": {"mode": _MODES[choice]}}
    if settings := _settings(request):
        body["generationConfig"] = settings
    return body


def _settings(request: ModelRequest) -> Json:
    config = request.config
    named = {
        "temperature": config.temperature,
        "topP": config.top_p,
        "seed": config.seed,
        "maxOutputTokens": config.max_output_tokens,
        "stopSequences": config.stop_sequences or None,
    }
    out: Json = {name: value for name, value in named.items() if value is not None}
    line = gemini(request.model)
    thinking: Json = {}
    if config.thinking_level is not None and line.budget:
        thinking["thinkingBudget"] = min(GEMINI_BUDGETS[config.thinking_level], line.budget)
    elif level := line.level(config.thinking_level):
        thinking["thinkingLevel"] = level
    if config.thinking_summaries is not None and line.thinks:
        thinking["includeThoughts"] = config.thinking_summaries == "auto"
    if thinking:
        out["thinkingConfig"] = thinking
    return out


def _tool(tool: Json) -> Json:
    out: Json = {"name": tool["name"], "description": tool.get("description") or ""}
    parameters = obj(tool.get("parameters"))
    if parameters.get("properties") or parameters.get("$ref"):
        out["parametersJsonSchema"] = {k: v for k, v in parameters.items() if k != "$schema"}
    return out


def _contents(provider: str, request: ModelRequest) -> list[Json]:
    out: list[Json] = []
    ids = WireIds(r"[^\s]{1,128}")
    third = re.search(r"gemini-(?:[3-9]|\d\d|\w+-latest)", base_name(request.model)) is not None
    minted: set[str] = set()
    for turn in turns(request.steps):
        if turn.role == "model":
            if not out:
                out.append({"role": "user", "parts": [{"text": EARLIER}]})
            parts = _model(provider, turn, ids, minted, third)
            role = "model"
        else:
            parts = _user(turn, ids, minted, third) or [{"text": EMPTY}]
            role = "user"
        if not parts:
            continue
        if out and out[-1]["role"] == role:
            out[-1]["parts"].extend(parts)
        else:
            out.append({"role": role, "parts": parts})
    return out or [{"role": "user", "parts": [{"text": EMPTY}]}]


def _model(provider: str, turn: Turn, ids: WireIds, minted: set[str], third: bool) -> list[Json]:
    out: list[Json] = []
    signed = False
    for step in turn.steps:
        state = own_state(step, provider)
        if step.type == "function_call":
            id = ids.call(step.body.get("id"))
            call: Json = {"name": step.body.get("name") or "", "args": wire_arguments(step.body)}
            if state and state.get("minted"):
                minted.add(id)
            else:
                call["id"] = id
            part: Json = {"functionCall": call, **(state or {}).get("part", {})}
            if third and not signed and "thoughtSignature" not in part and state is None:
                part["thoughtSignature"] = UNSIGNED
            signed = True
            out.append(part)
        elif state and "part_of" in state:
            continue
        elif state and "parts" in state:
            out.extend(_restore(step, objs(state["parts"])))
        elif state and "part" in state:
            out.append(state["part"])
        elif step.type == "model_output":
            out.extend(_parts(objs(step.body.get("content"))))
        elif said := as_text(step):
            out.append({"text": said})
    return out


def _restore(step: Step, parts: list[Json]) -> list[Json]:
    pictures = [_part(content) or {} for content in objs(step.body.get("content")) if content.get("type") in MEDIA]
    out: list[Json] = []
    for part in parts:
        if "media" not in part:
            out.append(part)
            continue
        place: int = part["media"]
        rest: Json = {name: value for name, value in part.items() if name != "media"}
        out.append({**(pictures[place] if place < len(pictures) else {}), **rest})
    return out


def _parts(contents: list[Json]) -> list[Json]:
    return [part for content in contents if (part := _part(content)) is not None]


def _user(turn: Turn, ids: WireIds, minted: set[str], third: bool) -> list[Json]:
    out: list[Json] = []
    shown: list[Json] = []
    for step in turn.results:
        id = ids.result(step.body.get("call_id"))
        answer: Json = {"name": step.body.get("name") or "", "response": _response(step)}
        if id not in minted:
            answer["id"] = id
        files = [
            part for media in result_media(step.body) if (part := _media(media.kind, media.mime, media.data, media.uri))
        ]
        if files and third:
            answer["parts"] = files
        else:
            shown.extend(files)
        out.append({"functionResponse": answer})
    return [*out, *shown, *_parts(turn.content)]


def _response(step: Step) -> Json:
    result = step.body.get("result")
    parts = content_of(result)
    if parts is not None:
        result = "\n".join(part.get("text") or "" for part in parts if part["type"] == "text") or "(see the files)"
    if step.body.get("is_error"):
        return {"error": result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)}
    return obj(result) if isinstance(result, dict) else {"output": result}


def _part(content: Json) -> Json | None:
    if content.get("type") in MEDIA:
        media = media_of(content)
        return _media(media.kind, media.mime, media.data, media.uri)
    said = content.get("text") or ""
    return {"text": said} if said else None


def _media(kind: str, mime: str, data: str | None, uri: str | None) -> Json:
    if data is not None:
        return {"inlineData": {"mimeType": mime, "data": data}}
    return {"fileData": {"mimeType": mime, "fileUri": uri or ""}}
