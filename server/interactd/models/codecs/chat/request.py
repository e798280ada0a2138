"""Building a chat completions request."""

from __future__ import annotations

import re

from interactd.models.codecs.chat.dialects import Dialect, dialect
from interactd.models.codecs.history import (
    EARLIER,
    EMPTY,
    Turn,
    WireIds,
    as_text,
    media_of,
    output_parts,
    own_state,
    result_media,
    result_text,
    turns,
)
from interactd.models.codecs.shapes import dump_arguments, obj, objs
from interactd.models.codecs.thinking import base_name, chat_family
from interactd.models.port import ModelRequest
from interactd.nouns import Json, text_content

_NO_SYSTEM = re.compile(r"o1-(?:mini|preview)")
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def build(provider: str, request: ModelRequest, *, stream: bool) -> Json:
    """Return the JSON body for `POST .../chat/completions`."""
    habits = dialect(provider)
    body: Json = {"model": request.model, "messages": _messages(provider, request, habits)}
    if stream:
        body["stream"] = True
        if habits.stream_usage:
            body["stream_options"] = {"include_usage": True}
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        if choice := request.config.tool_choice:
            wanted = _CHOICES[choice]
            body["tool_choice"] = wanted if wanted != "required" or habits.required else "auto"
    _settings(body, provider, request, habits)
    if habits.cache_key and request.cache_key:
        body["prompt_cache_key"] = request.cache_key[:64]
    return body


def _settings(body: Json, provider: str, request: ModelRequest, habits: Dialect) -> None:
    config = request.config
    family = chat_family(provider, request.model)
    effort = family.effort(config.thinking_level)
    if provider == "openrouter":
        reasoning: Json = {"effort": effort} if effort else {}
        if config.thinking_summaries:
            reasoning["exclude"] = config.thinking_summaries == "none"
        if reasoning:
            body["reasoning"] = reasoning
    elif effort:
        body["reasoning_effort"] = effort
    if config.max_output_tokens is not None:
        body[habits.max_tokens] = config.max_output_tokens
    if config.seed is not None and habits.seed:
        body[habits.seed] = config.seed
    # OpenAI's models refuse these while they reason; other servers take them always.
    if provider in ("openai", "azure") and (effort or family.always):
        return
    if config.temperature is not None:
        body["temperature"] = config.temperature
    if config.top_p is not None:
        body["top_p"] = config.top_p
    if config.stop_sequences:
        body["stop"] = config.stop_sequences


def _tool(tool: Json) -> Json:
    function: Json = {"name": tool["name"], "description": tool.get("description") or ""}
    function["parameters"] = tool.get("parameters") or {"type": "object", "properties": {}}
    return {"type": "function", "function": function}


def _messages(provider: str, request: ModelRequest, habits: Dialect) -> list[Json]:
    out: list[Json] = []
    if request.system_instruction:
        role = "user" if _NO_SYSTEM.match(base_name(request.model)) else "system"
        out.append({"role": role, "content": request.system_instruction})
    ids = WireIds(habits.call_id, prefix=habits.id_prefix, digits=habits.id_digits)
    conversation = turns(request.steps)
    if habits.alternates and conversation and conversation[0].role == "model":
        out.append({"role": "user", "content": EARLIER})
    for turn in conversation:
        if turn.role == "model":
            message = _assistant(provider, turn, ids)
            if message is not None:
                out.append(message)
        else:
            out.extend(_user(turn, ids, habits))
    return out


def _assistant(provider: str, turn: Turn, ids: WireIds) -> Json | None:
    """One message for the whole turn; `None` when nothing of it means anything here."""
    message: Json = {"role": "assistant", "content": None}
    texts: list[str] = []
    calls: list[Json] = []
    for step in turn.steps:
        state = own_state(step, provider)
        if state:
            # Reasoning in the field it came in, and whatever else the server wants to see again.
            for name, value in state.get("message", {}).items():
                both = isinstance(value, type(message.get(name))) and isinstance(value, str | list)
                message[name] = message[name] + value if both else value
        if step.type == "function_call":
            call: Json = {"id": ids.call(step.body.get("id")), "type": "function"}
            call["function"] = {"name": step.body.get("name") or "", "arguments": dump_arguments(step.body)}
            calls.append({**call, **(state or {}).get("call", {})})
        elif step.type == "model_output" and state and state.get("refusal"):
            message["refusal"] = step.text
        elif step.type == "model_output":
            texts.append("".join(part.get("text") or "" for part in output_parts(step)))
        elif said := as_text(step):
            texts.append(said)
    if texts:
        message["content"] = "\n\n".join(text for text in texts if text)
    if calls:
        message["tool_calls"] = calls
    if not (calls or message["content"] or "refusal" in message or len(message) > 2):
        return None
    if message["content"] is None and not calls and "refusal" not in message:
        message["content"] = ""
    return message


def _user(turn: Turn, ids: WireIds, habits: Dialect) -> list[Json]:
    out: list[Json] = []
    extra: list[Json] = []
    for step in turn.results:
        out.append(
            {"role": "tool", "tool_call_id": ids.result(step.body.get("call_id")), "content": result_text(step.body)}
        )
        shown = result_media(step.body)
        if shown:
            # A tool message holds text only, so what the tool showed follows as the user's.
            extra.append(text_content(f"What {step.body.get('name') or 'the function'} returned:"))
            extra.extend(
                {"type": item.kind, "data": item.data, "uri": item.uri, "mime_type": item.mime} for item in shown
            )
    content = extra + turn.content
    if content:
        out.append({"role": "user", "content": _content(content, habits)})
    elif not out:
        out.append({"role": "user", "content": EMPTY})
    return out


def _content(content: list[Json], habits: Dialect) -> str | list[Json]:
    parts = [_part(part, habits) for part in content]
    if all(part["type"] == "text" for part in parts):
        # Many local servers take a string only.
        return "\n\n".join(part["text"] for part in parts) or EMPTY
    return parts


def _part(part: Json, habits: Dialect) -> Json:
    if part.get("type") == "text":
        return text_content(part.get("text") or "")
    media = media_of(part)
    if media.kind == "image":
        return {"type": "image_url", "image_url": {"url": media.url}}
    if habits.files and media.kind == "audio" and media.data:
        suffix = "mp3" if "mp" in media.mime else "wav"
        return {"type": "input_audio", "input_audio": {"data": media.data, "format": suffix}}
    if habits.files and media.kind == "document" and media.data:
        name = "document." + (media.mime.rpartition("/")[2] or "pdf")
        return {"type": "file", "file": {"filename": name, "file_data": media.url}}
    return text_content(media.omitted)


def echoed(message: Json) -> Json:
    """What of an answer must be sent back with it: reasoning details and signatures in the server's own fields."""
    kept = {name: message[name] for name in ("extra_content", "thought_signature") if message.get(name)}
    if details := objs(message.get("reasoning_details")):
        kept["reasoning_details"] = details
    return kept


def images(message: Json) -> list[Json]:
    """Images that a router's model drew, as image contents."""
    out: list[Json] = []
    for item in objs(message.get("images")):
        url = obj(item.get("image_url")).get("url")
        if isinstance(url, str):
            media = media_of({"type": "image", "uri": url})
            out.append(
                {"type": "image", "mime_type": media.mime, **({"data": media.data} if media.data else {"uri": url})}
            )
    return out
