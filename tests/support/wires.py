"""The four providers' wires, from the server's side: renders one neutral `Reply` as each provider would send it.

Shapes are copied from recorded traffic. A stream is a list of parts: bytes (one server-sent event), or a pause
(seconds, or an event to wait for).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Wire = Literal["openai-chat", "openai-responses", "anthropic", "gemini"]
Pause = float | asyncio.Event
Piece = str | Pause
Part = bytes | Pause
Json = dict[str, Any]

# Neutral finish word -> the word on each wire. A word that is not here is sent as it is.
FINISH: dict[str, dict[str, str]] = {
    "openai-chat": {},
    "openai-responses": {"length": "max_output_tokens"},
    "anthropic": {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens", "content_filter": "refusal"},
    "gemini": {"stop": "STOP", "tool_calls": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"},
}


@dataclass(slots=True)
class Call:
    """A function call the fake model makes. `arguments` as text is sent verbatim (for broken JSON)."""

    name: str
    arguments: Json | str
    id: str = ""


@dataclass(slots=True)
class Reply:
    """One answer of the fake model, for whichever wire asks.

    `text` and `thought` are a string (streamed word by word) or pieces: strings, seconds to wait, or events to wait
    for. `truncate_after` closes the socket after that many server-sent events; `cut` writes that many bytes at a time.
    """

    text: str | Sequence[Piece] = ""
    thought: str | Sequence[Piece] = ""
    calls: Sequence[Call] = ()
    finish: str = ""
    input_tokens: int = 10
    output_tokens: int = 5
    thought_tokens: int = 0
    cached_tokens: int = 0
    usage: bool = True
    model: str = "fake-model-1"
    signature: str = "c2lnbmF0dXJl"
    truncate_after: int | None = None
    cut: int | None = None
    ignore_stream: bool = False

    @property
    def reason(self) -> str:
        return self.finish or ("tool_calls" if self.calls else "stop")


def pieces(given: str | Sequence[Piece]) -> list[Piece]:
    """Split a plain string at its spaces, so that it arrives in several deltas."""
    if not isinstance(given, str):
        return list(given)
    words = given.split(" ")
    return [word + (" " if n < len(words) - 1 else "") for n, word in enumerate(words)] if given else []


def plain(given: str | Sequence[Piece]) -> str:
    return "".join(piece for piece in pieces(given) if isinstance(piece, str))


def sse(data: Json | str, event: str | None = None, end: str = "\n\n") -> bytes:
    """Encode one server-sent event."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    name = f"event: {event}\n" if event else ""
    return f"{name}data: {text}{end}".encode()


def arguments(call: Call) -> str:
    return call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments)


def stream(wire: Wire, reply: Reply) -> list[Part]:
    """Render the whole stream."""
    return {
        "openai-chat": _chat_stream,
        "openai-responses": _responses_stream,
        "anthropic": _anthropic_stream,
        "gemini": _gemini_stream,
    }[wire](reply)


def body(wire: Wire, reply: Reply) -> Json:
    """Render the answer to a call that did not ask for a stream."""
    return {
        "openai-chat": _chat_body,
        "openai-responses": _response_object,
        "anthropic": _anthropic_body,
        "gemini": _gemini_body,
    }[wire](reply)


def error_body(wire: Wire, status: int, message: str, kind: str | None) -> Json:
    """Render an error as the wire's provider does."""
    if wire == "anthropic":
        names = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error"}
        names |= {429: "rate_limit_error", 529: "overloaded_error"}
        return {"type": "error", "error": {"type": kind or names.get(status, "api_error"), "message": message}}
    if wire == "gemini":
        names = {400: "INVALID_ARGUMENT", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}
        return {"error": {"code": status, "message": message, "status": kind or names.get(status, "UNAVAILABLE")}}
    return {"error": {"message": message, "type": kind or "invalid_request_error", "param": None, "code": kind}}


# -- chat completions ----------------------------------------------------------------------------------------------


def _chat_usage(reply: Reply) -> Json:
    output = reply.output_tokens + reply.thought_tokens
    return {
        "prompt_tokens": reply.input_tokens,
        "completion_tokens": output,
        "total_tokens": reply.input_tokens + output,
        "prompt_tokens_details": {"cached_tokens": reply.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": reply.thought_tokens},
    }


def _chat_calls(reply: Reply) -> list[Json]:
    return [
        {
            "id": call.id or f"call_{n}",
            "type": "function",
            "function": {"name": call.name, "arguments": arguments(call)},
        }
        for n, call in enumerate(reply.calls)
    ]


def _chat_stream(reply: Reply) -> list[Part]:
    head: Json = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_763_000_000, "model": reply.model}

    def chunk(delta: Json, finish: str | None = None) -> bytes:
        return sse({**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]})

    parts: list[Part] = [chunk({"role": "assistant", "content": ""})]
    for name, given in (("reasoning_content", reply.thought), ("content", reply.text)):
        parts += [chunk({name: piece}) if isinstance(piece, str) else piece for piece in pieces(given)]
    for n, call in enumerate(_chat_calls(reply)):
        text = call["function"]["arguments"]
        parts.append(chunk({"tool_calls": [{"index": n, **call, "function": {**call["function"], "arguments": ""}}]}))
        for half in (text[: len(text) // 2], text[len(text) // 2 :]):
            parts.append(chunk({"tool_calls": [{"index": n, "function": {"arguments": half}}]}))
    parts.append(chunk({}, FINISH["openai-chat"].get(reply.reason, reply.reason)))
    if reply.usage:
        parts.append(sse({**head, "choices": [], "usage": _chat_usage(reply)}))
    return [*parts, sse("[DONE]")]


def _chat_body(reply: Reply) -> Json:
    message: Json = {"role": "assistant", "content": plain(reply.text) or None}
    if reply.thought:
        message["reasoning_content"] = plain(reply.thought)
    if reply.calls:
        message["tool_calls"] = _chat_calls(reply)
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_763_000_000,
        "model": reply.model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reply.reason}],
        **({"usage": _chat_usage(reply)} if reply.usage else {}),
    }


# -- responses -----------------------------------------------------------------------------------------------------


def _response_items(reply: Reply) -> list[Json]:
    items: list[Json] = []
    if reply.thought:
        summary = [{"type": "summary_text", "text": plain(reply.thought)}]
        items.append({"id": "rs_1", "type": "reasoning", "summary": summary, "encrypted_content": reply.signature})
    if reply.text:
        content: list[Json] = [{"type": "output_text", "annotations": [], "logprobs": [], "text": plain(reply.text)}]
        message: Json = {
            "id": "msg_1",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": content,
        }
        items.append(message)
    for n, call in enumerate(reply.calls):
        head = {"id": f"fc_{n}", "type": "function_call", "status": "completed", "name": call.name}
        items.append({**head, "call_id": call.id or f"call_{n}", "arguments": arguments(call)})
    return items


def _response_object(reply: Reply, status: str = "") -> Json:
    done = not status
    reason = FINISH["openai-responses"].get(reply.reason, reply.reason)
    complete = reply.reason in ("stop", "tool_calls")
    output = reply.output_tokens + reply.thought_tokens
    usage = {
        "input_tokens": reply.input_tokens,
        "input_tokens_details": {"cached_tokens": reply.cached_tokens},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": reply.thought_tokens},
        "total_tokens": reply.input_tokens + output,
    }
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_763_000_000,
        "status": status or ("completed" if complete else "incomplete"),
        "error": None,
        "incomplete_details": None if not done or complete else {"reason": reason},
        "model": reply.model,
        "output": _response_items(reply) if done else [],
        "parallel_tool_calls": True,
        "store": False,
        "usage": usage if done and reply.usage else None,
    }


def _responses_stream(reply: Reply) -> list[Part]:
    parts: list[Part] = []
    count = 0

    def emit(kind: str, **fields: Any) -> None:
        nonlocal count
        parts.append(sse({"type": kind, **fields, "sequence_number": count}, kind))
        count += 1

    def deltas(kind: str, given: str | Sequence[Piece], **where: Any) -> None:
        for piece in pieces(given):
            if isinstance(piece, str):
                emit(kind, delta=piece, **where)
            else:
                parts.append(piece)

    emit("response.created", response=_response_object(reply, "in_progress"))
    emit("response.in_progress", response=_response_object(reply, "in_progress"))
    for index, item in enumerate(_response_items(reply)):
        at: Json = {"item_id": item["id"], "output_index": index}
        if item["type"] == "reasoning":
            emit("response.output_item.added", output_index=index, item={**item, "summary": []})
            part: Json = {**at, "summary_index": 0}
            emit("response.reasoning_summary_part.added", **part, part={"type": "summary_text", "text": ""})
            deltas("response.reasoning_summary_text.delta", reply.thought, **part)
            emit("response.reasoning_summary_text.done", **part, text=plain(reply.thought))
            emit("response.reasoning_summary_part.done", **part, part=item["summary"][0])
        elif item["type"] == "message":
            started: Json = {**item, "status": "in_progress", "content": []}
            emit("response.output_item.added", output_index=index, item=started)
            part = {**at, "content_index": 0}
            emit("response.content_part.added", **part, part={**item["content"][0], "text": ""})
            deltas("response.output_text.delta", reply.text, **part, logprobs=[])
            emit("response.output_text.done", **part, text=plain(reply.text), logprobs=[])
            emit("response.content_part.done", **part, part=item["content"][0])
        else:
            started = {**item, "status": "in_progress", "arguments": ""}
            emit("response.output_item.added", output_index=index, item=started)
            text = item["arguments"]
            deltas("response.function_call_arguments.delta", [text[: len(text) // 2], text[len(text) // 2 :]], **at)
            emit("response.function_call_arguments.done", **at, arguments=text)
        emit("response.output_item.done", output_index=index, item=item)
    final = _response_object(reply)
    emit(f"response.{final['status']}", response=final)
    return parts


# -- anthropic messages --------------------------------------------------------------------------------------------


def _anthropic_usage(reply: Reply, *, output: int | None = None) -> Json:
    return {
        "input_tokens": reply.input_tokens - reply.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": reply.cached_tokens,
        "output_tokens": reply.output_tokens + reply.thought_tokens if output is None else output,
    }


def _anthropic_blocks(reply: Reply) -> list[Json]:
    blocks: list[Json] = []
    if reply.thought:
        blocks.append({"type": "thinking", "thinking": plain(reply.thought), "signature": reply.signature})
    if reply.text:
        blocks.append({"type": "text", "text": plain(reply.text)})
    for n, call in enumerate(reply.calls):
        given: Any = call.arguments
        if isinstance(given, str):
            try:
                given = json.loads(given)
            except ValueError:
                # Only a stream can carry what is no JSON.
                given = {}
        blocks.append({"type": "tool_use", "id": call.id or f"toolu_{n}", "name": call.name, "input": given})
    return blocks


def _anthropic_body(reply: Reply) -> Json:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": reply.model,
        "content": _anthropic_blocks(reply),
        "stop_reason": FINISH["anthropic"].get(reply.reason, reply.reason),
        "stop_sequence": None,
        "usage": _anthropic_usage(reply),
    }


def _anthropic_stream(reply: Reply) -> list[Part]:
    parts: list[Part] = []

    def emit(kind: str, **fields: Any) -> None:
        parts.append(sse({"type": kind, **fields}, kind))

    def block(index: int, start: Json, deltas: list[Json | Pause]) -> None:
        emit("content_block_start", index=index, content_block=start)
        for delta in deltas:
            if isinstance(delta, dict):
                emit("content_block_delta", index=index, delta=delta)
            else:
                parts.append(delta)
        emit("content_block_stop", index=index)

    message: Json = {
        **_anthropic_body(reply),
        "content": [],
        "stop_reason": None,
        "usage": _anthropic_usage(reply, output=1),
    }
    emit("message_start", message=message)
    emit("ping")
    index = 0
    if reply.thought:
        said: list[Json | Pause] = [
            {"type": "thinking_delta", "thinking": piece} if isinstance(piece, str) else piece
            for piece in pieces(reply.thought)
        ]
        said.append({"type": "signature_delta", "signature": reply.signature})
        block(index, {"type": "thinking", "thinking": "", "signature": ""}, said)
        index += 1
    if reply.text:
        said = [
            {"type": "text_delta", "text": piece} if isinstance(piece, str) else piece for piece in pieces(reply.text)
        ]
        block(index, {"type": "text", "text": ""}, said)
        index += 1
    for n, call in enumerate(reply.calls):
        text = arguments(call)
        halves = ["", text[: len(text) // 2], text[len(text) // 2 :]]
        start: Json = {"type": "tool_use", "id": call.id or f"toolu_{n}", "name": call.name, "input": {}}
        block(index, start, [{"type": "input_json_delta", "partial_json": half} for half in halves])
        index += 1
    stop = FINISH["anthropic"].get(reply.reason, reply.reason)
    ended: Json = {"delta": {"stop_reason": stop, "stop_sequence": None}}
    emit("message_delta", **ended, **({"usage": _anthropic_usage(reply)} if reply.usage else {}))
    emit("message_stop")
    return parts


# -- gemini generateContent ----------------------------------------------------------------------------------------


def _gemini_chunk(reply: Reply, parts: list[Json], *, last: bool) -> Json:
    candidate: Json = {"content": {"parts": parts, "role": "model"}, "index": 0}
    out: Json = {"candidates": [candidate], "modelVersion": reply.model, "responseId": "r1"}
    usage: Json = {"promptTokenCount": reply.input_tokens, "totalTokenCount": reply.input_tokens}
    if last:
        candidate["finishReason"] = FINISH["gemini"].get(reply.reason, reply.reason)
        total = reply.input_tokens + reply.output_tokens + reply.thought_tokens
        usage |= {"candidatesTokenCount": reply.output_tokens, "totalTokenCount": total}
        if reply.thought_tokens:
            usage["thoughtsTokenCount"] = reply.thought_tokens
        if reply.cached_tokens:
            usage["cachedContentTokenCount"] = reply.cached_tokens
    return {**out, "usageMetadata": usage} if reply.usage else out


def _gemini_calls(reply: Reply) -> list[Json]:
    out: list[Json] = []
    for call in reply.calls:
        given: Any = json.loads(call.arguments) if isinstance(call.arguments, str) else call.arguments
        part: Json = {"functionCall": {"name": call.name, "args": given, **({"id": call.id} if call.id else {})}}
        # The provider signs the first call of a parallel set only.
        out.append(part if out or not reply.thought else {**part, "thoughtSignature": reply.signature})
    return out


def _gemini_stream(reply: Reply) -> list[Part]:
    out: list[Part] = []

    def emit(parts: list[Json], *, last: bool = False) -> None:
        out.append(sse(_gemini_chunk(reply, parts, last=last), end="\r\n\r\n"))

    for flag, given in (({"thought": True}, reply.thought), ({}, reply.text)):
        for piece in pieces(given):
            if isinstance(piece, str):
                emit([{"text": piece, **flag}])
            else:
                out.append(piece)
    emit(_gemini_calls(reply) or [{"text": ""}], last=True)
    return out


def _gemini_body(reply: Reply) -> Json:
    parts: list[Json] = [{"text": plain(reply.thought), "thought": True}] if reply.thought else []
    if reply.text:
        parts.append({"text": plain(reply.text)})
    return _gemini_chunk(reply, parts + _gemini_calls(reply), last=True)
