"""What a recording says, worked out the plain way: no parser of ours, no state, the whole text at once."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from models.codecs.wire import Exchange, Json

NOTHING: Any = {}


@dataclass(slots=True)
class Expected:
    """The figures to compare."""

    text: str = ""
    thought: str = ""
    calls: list[tuple[str, Any]] = field(default_factory=list[tuple[str, Any]])
    usage: dict[str, int | None] = field(default_factory=dict[str, int | None])
    reason: str = ""
    raw: str | None = None


def events(text: str) -> list[Json]:
    """The data of every event, as JSON."""
    lines = text.replace("\r\n", "\n").split("\n")
    data = [line[5:].strip() for line in lines if line.startswith("data:")]
    return [json.loads(item) for item in data if item and item != "[DONE]"]


def expect(exchange: Exchange) -> Expected:
    """Read the exchange's answer."""
    assert exchange.kind is not None
    read = {"openai-chat": _chat, "openai-responses": _responses, "anthropic": _messages, "gemini": _gemini}
    parts = events(exchange.text) if exchange.streamed else [exchange.body or NOTHING]
    return read[exchange.kind](parts, exchange.streamed)


def _args(raw: Any) -> Any:
    given: Any = raw
    return given if isinstance(raw, dict) else json.loads(raw or "{}")


def _chat(parts: list[Json], streamed: bool) -> Expected:
    out = Expected()
    calls: dict[int, list[str]] = {}
    for part in parts:
        for choice in part.get("choices") or NOTHING:
            message = choice.get("delta" if streamed else "message") or NOTHING
            out.text += message.get("content") or message.get("refusal") or ""
            out.thought += message.get("reasoning_content") or message.get("reasoning") or ""
            for number, call in enumerate(message.get("tool_calls") or NOTHING):
                known = calls.setdefault(call.get("index", number), ["", ""])
                known[0] += call["function"].get("name") or ""
                known[1] += call["function"].get("arguments") or ""
            out.raw = choice.get("finish_reason") or out.raw
        if usage := part.get("usage"):
            details = usage.get("completion_tokens_details") or NOTHING
            thought = details.get("reasoning_tokens")
            out.usage = {
                "input": usage["prompt_tokens"],
                "output": usage["completion_tokens"] - (thought or 0),
                "thought": thought,
                "cached": (usage.get("prompt_tokens_details") or NOTHING).get("cached_tokens"),
                "total": usage["total_tokens"],
            }
    out.calls = [(name, _args(raw)) for name, raw in calls.values()]
    out.reason = {"stop": "stop", "tool_calls": "tool_calls", "length": "length"}[out.raw or ""]
    return out


def _responses(parts: list[Json], streamed: bool) -> Expected:
    response = next(part for part in reversed(parts) if "response" in part)["response"] if streamed else parts[0]
    out = Expected(raw=response["status"])
    for item in response["output"]:
        if item["type"] == "message":
            out.text += "".join(part.get("text") or part.get("refusal") or "" for part in item["content"])
        elif item["type"] == "reasoning":
            summary = [part["text"] for part in item.get("summary") or NOTHING]
            out.thought += "".join(summary or [part["text"] for part in item.get("content") or NOTHING])
        elif item["type"] == "function_call":
            out.calls.append((item["name"], _args(item["arguments"])))
    if usage := response.get("usage"):
        thought = (usage.get("output_tokens_details") or NOTHING).get("reasoning_tokens")
        out.usage = {
            "input": usage["input_tokens"],
            "output": usage["output_tokens"] - (thought or 0),
            "thought": thought,
            "cached": (usage.get("input_tokens_details") or NOTHING).get("cached_tokens"),
            "total": usage.get("total_tokens", usage["input_tokens"] + usage["output_tokens"]),
        }
    if out.raw not in ("completed", "complete"):
        out.reason = "unknown"
    else:
        out.reason = "tool_calls" if out.calls else "stop"
    return out


def _messages(parts: list[Json], streamed: bool) -> Expected:
    if not streamed:
        blocks: list[Json] = parts[0]["content"]
        usage: Json = parts[0]["usage"]
        out = Expected(raw=parts[0]["stop_reason"])
    else:
        out, usage = Expected(), NOTHING
        found: dict[int, Json] = {}
        for part in parts:
            if part["type"] == "content_block_start":
                found[part["index"]] = {**part["content_block"], "json": ""}
            elif part["type"] == "content_block_delta":
                block, delta = found[part["index"]], part["delta"]
                for name in ("text", "thinking"):
                    block[name] = block.get(name, "") + delta.get(name, "")
                block["json"] += delta.get("partial_json", "")
            elif part["type"] == "message_start":
                usage = dict(part["message"]["usage"])
            elif part["type"] == "message_delta":
                out.raw = part["delta"]["stop_reason"]
                usage = {**usage, **part["usage"]}
        blocks = [
            {**block, "input": _args(block["json"])} if block["type"] == "tool_use" else block
            for _, block in sorted(found.items())
        ]
    for block in blocks:
        if block["type"] == "text":
            out.text += block["text"]
        elif block["type"] == "thinking":
            out.thought += block["thinking"]
        elif block["type"] == "tool_use":
            out.calls.append((block["name"], block["input"]))
    cached: int | None
    written: int | None
    cached, written = usage.get("cache_read_input_tokens"), usage.get("cache_creation_input_tokens")
    given = usage["input_tokens"] + (cached or 0) + (written or 0)
    thought = (usage.get("output_tokens_details") or NOTHING).get("thinking_tokens")
    out.usage = {
        "input": given,
        "output": usage["output_tokens"] - (thought or 0),
        "thought": thought,
        "cached": cached,
        "cache_write": written,
        "total": given + usage["output_tokens"],
    }
    out.reason = {"end_turn": "stop", "tool_use": "tool_calls", "max_tokens": "length"}[out.raw or ""]
    return out


def _gemini(parts: list[Json], streamed: bool) -> Expected:
    out = Expected()
    usage: Json = {}
    for part in parts:
        usage.update(part.get("usageMetadata") or NOTHING)
        for candidate in part.get("candidates") or NOTHING:
            out.raw = candidate.get("finishReason") or out.raw
            for piece in (candidate.get("content") or NOTHING).get("parts") or NOTHING:
                if "functionCall" in piece:
                    out.calls.append((piece["functionCall"]["name"], piece["functionCall"].get("args") or NOTHING))
                elif piece.get("thought"):
                    out.thought += piece["text"]
                else:
                    out.text += piece.get("text") or ""
    out.usage = {
        "input": usage.get("promptTokenCount"),
        "output": usage.get("candidatesTokenCount"),
        "thought": usage.get("thoughtsTokenCount"),
        "cached": usage.get("cachedContentTokenCount"),
        "tool_use": usage.get("toolUsePromptTokenCount"),
        "total": usage.get("totalTokenCount"),
    }
    words = {"STOP": "stop", "MAX_TOKENS": "length", "SAFETY": "content_filter", "MODEL_ARMOR": "content_filter"}
    out.reason = words[out.raw or ""]
    if out.calls and out.reason == "stop":
        out.reason = "tool_calls"
    return out
