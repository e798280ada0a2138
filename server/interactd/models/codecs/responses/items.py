"""Output items of the responses API as steps."""

from __future__ import annotations

from typing import Any

from interactd.models.codecs.chat.parser import annotation
from interactd.models.codecs.shapes import mint_call_id, obj, objs, parse_arguments, text
from interactd.nouns import Json, Step, text_content

TYPES = {
    "message": "model_output",
    "image_generation_call": "model_output",
    "reasoning": "thought",
    "function_call": "function_call",
    "web_search_call": "google_search_call",
    "file_search_call": "file_search_call",
    "code_interpreter_call": "code_execution_call",
    "mcp_call": "mcp_server_tool_call",
    "tool_search_call": "tool_search_call",
}
"""The step type an item begins as; others are opaque."""


def step_type(item: Json) -> str:
    """The type of the (first) step that an item becomes."""
    return TYPES.get(text(item.get("type")), "opaque")


def head(item: Json) -> Json:
    """What is known of a step when its item begins."""
    if item.get("type") == "function_call":
        return {"id": text(item.get("call_id")) or text(item.get("id")), "name": text(item.get("name"))}
    return {"id": item["id"]} if item.get("id") and item.get("type") not in ("message", "reasoning") else {}


def steps(item: Json, state: Json, *, said: str = "") -> list[Step]:
    """Turn a whole item into its steps: a server-side tool's result is a step of its own.

    Args:
        item: the item, as the provider ended it.
        state: provider and model; the item goes in on the first step.
        said: what the deltas said, for a server that leaves it out of the item.
    """
    kind = text(item.get("type"))
    own = {**state, "item": item}
    if kind == "message":
        return [_message(item, state, said)]
    if kind == "reasoning":
        return [_reasoning(item, own, said)]
    if kind == "function_call":
        return [_function_call(item, state, said)]
    if kind == "image_generation_call" and item.get("result"):
        mime = f"image/{item.get('output_format') or 'png'}"
        image: Json = {"type": "image", "data": text(item["result"]), "mime_type": mime}
        # The picture is kept once, in the body; `restore` puts it back.
        slim = {name: value for name, value in item.items() if name != "result"}
        return [Step("model_output", {"content": [image]}, {**state, "item": slim})]
    if kind in TYPES and kind != "image_generation_call":
        return _server_tool(kind, item, own)
    return [Step("opaque", {"kind": kind}, own)]


def restore(step: Step, item: Json) -> Json:
    """The item to send back, with what `steps` left out of it."""
    if item.get("type") == "image_generation_call" and "result" not in item:
        return {**item, "result": next((part.get("data") for part in objs(step.body.get("content"))), None)}
    return item


def output_content(item: Json) -> tuple[list[Json], str]:
    """A message's contents, and its refusal if it has one."""
    content: list[Json] = []
    refusal = ""
    for part in objs(item.get("content")):
        said = text(part.get("text")) if part.get("type") != "refusal" else text(part.get("refusal"))
        if part.get("type") == "refusal":
            refusal += said
        if not said:
            continue
        out = text_content(said)
        if notes := objs(part.get("annotations")):
            out["annotations"] = [annotation(note, said) for note in notes]
        content.append(out)
    return content, refusal


def _message(item: Json, state: Json, said: str) -> Step:
    content, refusal = output_content(item)
    if not content and said:
        content = [text_content(said)]
    # Log probabilities are large and nobody sends them back.
    parts = [{k: v for k, v in part.items() if k != "logprobs"} for part in objs(item.get("content"))]
    own: Json = {**state, "item": {**item, "content": parts}}
    if refusal:
        own["refusal"] = refusal
    return Step("model_output", {"content": content}, own)


def _reasoning(item: Json, own: Json, said: str) -> Step:
    summary = [text_content(text(part.get("text"))) for part in objs(item.get("summary")) if part.get("text")]
    if not summary:
        raw = [text(part.get("text")) for part in objs(item.get("content"))]
        summary = [text_content(part) for part in raw if part]
    if not summary and said:
        summary = [text_content(said)]
    return Step("thought", {"summary": summary}, own)


def _function_call(item: Json, state: Json, said: str) -> Step:
    arguments, raw = parse_arguments(item.get("arguments") or said)
    id = text(item.get("call_id")) or text(item.get("id")) or mint_call_id()
    body: Json = {"id": id, "name": text(item.get("name")), "arguments": arguments}
    if raw is not None:
        body["raw_arguments"] = raw
    # The arguments are in the body already.
    slim = {name: value for name, value in item.items() if name not in ("arguments", "name", "call_id")}
    return Step("function_call", body, {**state, "item": slim})


def _server_tool(kind: str, item: Json, own: Json) -> list[Step]:
    id = text(item.get("id")) or mint_call_id()
    part: Json = {"provider": own["provider"], "model": own["model"], "part_of": id}
    failed = item.get("status") in ("failed", "incomplete")

    def pair(tool: str, call: Json, result: Any, **more: Any) -> list[Step]:
        steps = [Step(f"{tool}_call", {"id": id, **call}, own)]
        if result or failed or more.get("is_error"):
            body: Json = {"call_id": id, "result": result or "", **more}
            body["is_error"] = bool(more.get("is_error") or failed)
            steps.append(Step(f"{tool}_result", body, part))
        return steps

    if kind == "web_search_call":
        return _web_search(item, pair)
    if kind == "file_search_call":
        return pair("file_search", {"arguments": {"queries": item.get("queries") or []}}, item.get("results"))
    if kind == "code_interpreter_call":
        outputs = objs(item.get("outputs"))
        logs = "".join(text(out.get("logs")) for out in outputs)
        arguments = {"code": text(item.get("code")), "language": "python"}
        return pair("code_execution", {"arguments": arguments}, logs or (outputs or None))
    if kind == "mcp_call":
        names: Json = {"name": text(item.get("name")), "server_name": text(item.get("server_label"))}
        arguments, raw = parse_arguments(item.get("arguments"))
        call: Json = {**names, "arguments": arguments, **({"raw_arguments": raw} if raw is not None else {})}
        error = item.get("error")
        return pair("mcp_server_tool", call, error or item.get("output"), **names, is_error=bool(error))
    arguments, _ = parse_arguments(item.get("arguments"))
    return [Step("tool_search_call", {"id": id, "arguments": arguments}, own)]


def _web_search(item: Json, pair: Any) -> list[Step]:
    action = obj(item.get("action"))
    if action.get("type") in ("open_page", "find_in_page", "find"):
        arguments: Json = {"urls": [url] if (url := action.get("url")) else []}
        if action.get("pattern"):
            arguments["pattern"] = action["pattern"]
        return pair("url_context", {"arguments": arguments}, None)
    queries = action.get("queries") or ([action["query"]] if action.get("query") else [])
    return pair("google_search", {"arguments": {"queries": queries}}, action.get("sources") or item.get("results"))
