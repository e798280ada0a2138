"""Gemini parts and grounding as steps and annotations."""

from __future__ import annotations

from typing import Any

from interactd.models.codecs.shapes import arr, mint_call_id, obj, objs, text
from interactd.nouns import Json, Step

_TOOLS = {
    "GOOGLE_SEARCH_WEB": ("google_search", "web_search"),
    "GOOGLE_SEARCH_IMAGE": ("google_search", "image_search"),
    "URL_CONTEXT": ("url_context", None),
    "GOOGLE_MAPS": ("google_maps", None),
    "FILE_SEARCH": ("file_search", None),
    "MEDIA_PROCESSING": ("processing", None),
}
_KINDS = {"image": "image", "audio": "audio", "video": "video"}


def media_content(part: Json) -> Json | None:
    """An inline or referenced file of the model's as a Content, or `None` when the part is no file."""
    inline, file = obj(part.get("inlineData")), obj(part.get("fileData"))
    if not inline and not file:
        return None
    mime = text(inline.get("mimeType") or file.get("mimeType")) or "application/octet-stream"
    content: Json = {"type": _KINDS.get(mime.partition("/")[0], "document"), "mime_type": mime}
    if inline:
        content["data"] = text(inline.get("data"))
    else:
        content["uri"] = text(file.get("fileUri"))
    return content


def tool_step(part: Json, state: Json, last_code: str | None) -> Step | None:
    """A server-side tool's part as its step, or `None` for a part we do not know."""
    own = {**state, "part": part}
    if code := obj(part.get("executableCode")):
        arguments = {"code": text(code.get("code")), "language": text(code.get("language")).lower() or "python"}
        return Step("code_execution_call", {"id": text(code.get("id")) or mint_call_id(), "arguments": arguments}, own)
    if ran := obj(part.get("codeExecutionResult")):
        body: Json = {"call_id": text(ran.get("id")) or last_code or mint_call_id(), "result": text(ran.get("output"))}
        if ran.get("outcome") not in (None, "OUTCOME_OK"):
            body["is_error"] = True
        return Step("code_execution_result", body, own)
    if call := obj(part.get("toolCall")):
        name, search = _TOOLS.get(text(call.get("toolType")), (None, None))
        if name:
            body = {"id": text(call.get("id")), "arguments": obj(call.get("args"))}
            return Step(f"{name}_call", {**body, **({"search_type": search} if search else {})}, own)
    if answer := obj(part.get("toolResponse")):
        name, _ = _TOOLS.get(text(answer.get("toolType")), (None, None))
        if name:
            return Step(
                f"{name}_result", {"call_id": text(answer.get("id")), "result": answer.get("response") or {}}, own
            )
    return None


def grounding_steps(grounding: Json, urls: Json, state: Json, seen: set[str]) -> list[Step]:
    """The searches and fetches that only the metadata of an answer speaks of.

    `seen` are the step types that came as parts of their own: those are not told twice.
    """
    out: list[Step] = []
    own = {**state, "part_of": "grounding"}
    queries = [text(query) for query in arr(grounding.get("webSearchQueries"))]
    if queries and "google_search_call" not in seen:
        id = mint_call_id()
        out.append(Step("google_search_call", {"id": id, "arguments": {"queries": queries}}, own))
        found: list[Json] = []
        for chunk in objs(grounding.get("groundingChunks")):
            if web := obj(chunk.get("web")):
                found.append({name: web[key] for name, key in (("url", "uri"), ("title", "title")) if web.get(key)})
        shown = obj(grounding.get("searchEntryPoint")).get("renderedContent")
        result = [*found, *([{"search_suggestions": shown}] if shown else [])]
        out.append(Step("google_search_result", {"call_id": id, "result": result}, own))
    retrieved = [text(query) for query in arr(grounding.get("retrievalQueries"))]
    contexts = [obj(chunk.get("retrievedContext")) for chunk in objs(grounding.get("groundingChunks"))]
    contexts = [context for context in contexts if context]
    if (retrieved or contexts) and "file_search_call" not in seen:
        id = mint_call_id()
        out.append(Step("file_search_call", {"id": id, "arguments": {"queries": retrieved}}, own))
        out.append(Step("file_search_result", {"call_id": id, "result": contexts}, own))
    fetched = objs(urls.get("urlMetadata"))
    if fetched and "url_context_call" not in seen:
        id = mint_call_id()
        addresses = [text(item.get("retrievedUrl")) for item in fetched]
        out.append(Step("url_context_call", {"id": id, "arguments": {"urls": addresses}}, own))
        result = [
            {
                "url": text(item.get("retrievedUrl")),
                "status": text(item.get("urlRetrievalStatus")).rpartition("_")[2].lower(),
            }
            for item in fetched
        ]
        out.append(Step("url_context_result", {"call_id": id, "result": result}, own))
    return out


def citation_notes(grounding: Json) -> list[Json]:
    """Grounding supports as citations. Google counts in bytes of the whole answer, and so do annotations."""
    chunks = objs(grounding.get("groundingChunks"))
    out: list[Json] = []
    for support in objs(grounding.get("groundingSupports")):
        segment = obj(support.get("segment"))
        for index in arr(support.get("groundingChunkIndices")):
            if not isinstance(index, int) or not 0 <= index < len(chunks):
                continue
            note = _citation(chunks[index])
            if note is not None:
                span = {"start_index": segment.get("startIndex") or 0, "end_index": segment.get("endIndex") or 0}
                out.append({**note, **span})
    return out


def _citation(chunk: Json) -> Json | None:
    if web := obj(chunk.get("web")) or obj(chunk.get("maps")):
        return {"type": "url_citation", "url": web.get("uri"), "title": web.get("title")}
    if context := obj(chunk.get("retrievedContext")):
        note: dict[str, Any] = {"type": "file_citation", "file_name": context.get("title")}
        source = context.get("uri") or context.get("documentName") or context.get("fileSearchStore")
        return {**note, **({"document_uri": source} if source else {})}
    return None
