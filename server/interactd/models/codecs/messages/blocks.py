"""Anthropic content blocks as steps."""

from __future__ import annotations

from typing import Any

from interactd.models.codecs.shapes import mint_call_id, obj, objs, parse_arguments, text
from interactd.nouns import Json, Step, text_content

_CODE = ("code_execution", "bash_code_execution", "text_editor_code_execution")


def step_type(block: Json) -> str:
    """The type of step that a block becomes."""
    kind, name = text(block.get("type")), text(block.get("name"))
    if kind == "text":
        return "model_output"
    if kind in ("thinking", "redacted_thinking"):
        return "thought"
    if kind == "tool_use":
        return "function_call"
    if kind == "mcp_tool_use":
        return "mcp_server_tool_call"
    if kind == "mcp_tool_result":
        return "mcp_server_tool_result"
    if kind == "server_tool_use":
        if name in _CODE:
            return "code_execution_call"
        known = {"web_search": "google_search_call", "web_fetch": "url_context_call"}
        return known.get(name, "tool_search_call" if name.startswith("tool_search") else "opaque")
    if kind.endswith("code_execution_tool_result"):
        return "code_execution_result"
    known = {"web_search_tool_result": "google_search_result", "web_fetch_tool_result": "url_context_result"}
    return known.get(kind, "tool_search_result" if kind == "tool_search_tool_result" else "opaque")


def head(block: Json) -> Json:
    """What is known of a step when its block begins."""
    names = ("id", "name", "server_name")
    out = {name: block[name] for name in names if block.get(name)}
    return {**out, "call_id": block["tool_use_id"]} if block.get("tool_use_id") else out


def to_step(block: Json, state: Json, *, raw_input: str | None = None) -> Step:
    """Turn a whole block, other than text, into its step.

    Args:
        block: the block, with what its deltas brought.
        state: provider and model; the block itself goes in where it must come back as it was.
        raw_input: the streamed input as text, instead of `block["input"]`.
    """
    type = step_type(block)
    own = {**state, "block": block}
    if type == "thought":
        said = text(block.get("thinking"))
        return Step(type, {"summary": [text_content(said)] if said else []}, own)
    if type == "opaque":
        return Step(type, {"kind": text(block.get("type"))}, own)
    if type.endswith("_result"):
        return _result(type, block, own)
    arguments, raw = parse_arguments(raw_input if raw_input else block.get("input"))
    block["input"] = arguments
    body: Json = {"id": text(block.get("id")) or mint_call_id()}
    body["arguments"] = arguments
    if type in ("function_call", "mcp_server_tool_call"):
        body["name"] = text(block.get("name"))
    if raw is not None:
        body["raw_arguments"] = raw
    if type == "function_call":
        # The block is its body, unless the provider said more (who may call it, for instance).
        more = {k: v for k, v in block.items() if k not in ("type", "id", "name", "input")}
        return Step(type, body, {**state, "block": more} if more else None)
    if type == "mcp_server_tool_call":
        body["server_name"] = text(block.get("server_name"))
    elif type != "tool_search_call":
        body["arguments"] = _server_arguments(text(block.get("name")), arguments)
    return Step(type, body, own)


def _server_arguments(name: str, given: Json) -> Json:
    if name == "web_search":
        return {"queries": [given["query"]] if given.get("query") else []}
    if name == "web_fetch":
        return {"urls": [given["url"]] if given.get("url") else []}
    if name == "code_execution":
        return {"code": given.get("code", ""), "language": "python"}
    if name == "bash_code_execution":
        return {"code": given.get("command", ""), "language": "bash"}
    return given


def _result(type: str, block: Json, own: Json) -> Step:
    content: Any = block.get("content")
    inner = obj(content) if isinstance(content, dict) else {}
    failed = bool(block.get("is_error")) or "error" in text(inner.get("type")) or bool(inner.get("error_code"))
    body: Json = {"call_id": text(block.get("tool_use_id"))}
    if type == "google_search_result" and isinstance(content, list):
        # The encrypted page contents stay in the state.
        body["result"] = [
            {k: item[k] for k in ("url", "title", "page_age") if item.get(k) is not None} for item in objs(content)
        ]
    elif type == "url_context_result":
        status = "error" if failed else "success"
        body["result"] = [
            {
                "url": inner.get("url"),
                "status": status,
                **({"error": inner["error_code"]} if failed and inner.get("error_code") else {}),
            }
        ]
    elif type == "code_execution_result":
        failed = failed or bool(inner.get("return_code"))
        body["result"] = _code_output(inner)
    elif type == "mcp_server_tool_result":
        parts = objs(content) if isinstance(content, list) else None
        plain = parts is not None and all(part.get("type") == "text" for part in parts)
        body["result"] = "".join(text(part.get("text")) for part in parts or []) if plain else content
    else:
        body["result"] = content
    if failed:
        body["is_error"] = True
    return Step(type, body, own)


def _code_output(inner: Json) -> Any:
    if inner.get("error_code"):
        return text(inner.get("error_message")) or text(inner["error_code"])
    said = text(inner.get("stdout")) + text(inner.get("stderr"))
    if "stdout" in inner or "stderr" in inner:
        return said
    content = inner.get("content")
    return content if isinstance(content, str) else inner


def citation_notes(citations: list[Json], said: str) -> list[Json]:
    """Citations of a text block as annotations over the whole of it (offsets in bytes)."""
    out: list[Json] = []
    for citation in citations:
        web = bool(citation.get("url"))
        note: Json = {"type": "url_citation" if web else "file_citation", "start_index": 0}
        note["end_index"] = len(said.encode("utf-8", "replace"))
        if web:
            note["url"] = citation["url"]
        if title := citation.get("title") or citation.get("document_title"):
            note["title" if web else "file_name"] = title
        if citation.get("source"):
            note["document_uri" if not web else "source"] = citation["source"]
        if citation.get("cited_text"):
            note["cited_text"] = citation["cited_text"]
        out.append(note)
    return out
