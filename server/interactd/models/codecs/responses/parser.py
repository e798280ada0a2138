"""Reading responses: the event stream, or a whole response object."""

from __future__ import annotations

from dataclasses import dataclass, field

from interactd.models.codecs.emit import OpenStep, StreamParser
from interactd.models.codecs.faults import fault_of, to_error
from interactd.models.codecs.responses.items import head, step_type, steps
from interactd.models.codecs.shapes import Misfit, count, obj, objs, text
from interactd.models.port import FinishReason, ModelRequest
from interactd.nouns import Json, Usage

_INCOMPLETE: dict[str, FinishReason] = {
    "max_output_tokens": "length",
    "max_messages": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
}
_ENDS = frozenset(
    {"response.completed", "response.incomplete", "response.failed", "response.cancelled", "response.done"}
)


@dataclass(slots=True)
class _Item:
    """An output item under way."""

    opened: OpenStep
    item: Json
    done: bool = False
    streamed: set[str] = field(default_factory=set[str])


class ResponsesParser(StreamParser):
    """One response. Items are known by their output index; servers that count wrongly, by their id."""

    def __init__(self, provider: str, request: ModelRequest) -> None:
        super().__init__(provider, request)
        self._items: dict[object, _Item] = {}
        self._has_calls = False
        self._refusal = ""
        self._parts: set[tuple[object, object]] = set()

    def read(self, event: str | None, data: Json) -> None:
        kind = text(data.get("type")) or event or ""
        if kind == "error" or (data.get("error") and "response" not in data):
            raise to_error(self.provider, fault_of(data))
        if kind in _ENDS:
            return self._end_response(obj(data.get("response")), kind)
        if "response" in data:
            return self._head(obj(data["response"]))
        if kind == "response.output_item.added":
            self._added(data)
        elif kind == "response.output_item.done":
            self._done_item(data)
        elif kind in ("response.output_text.delta", "response.refusal.delta", "response.text.delta"):
            self._delta(data, "text")
        elif kind in ("response.reasoning_summary_text.delta", "response.reasoning_text.delta"):
            self._thought(data, kind)
        elif kind == "response.function_call_arguments.delta":
            self._delta(data, "arguments")
        elif not kind.startswith("response.") and kind not in ("keepalive", "ping", ""):
            raise Misfit(f"an event called {kind[:60]}")
        elif not kind:
            raise Misfit("an event without a type")

    def read_body(self, body: Json) -> None:
        if body.get("error") and "output" not in body:
            raise to_error(self.provider, fault_of(body))
        if "output" not in body and "status" not in body:
            raise Misfit("no output")
        self._end_response(body, "")

    # -- items ---------------------------------------------------------------------------------------------------

    def _key(self, data: Json) -> object:
        index = data.get("output_index")
        return index if isinstance(index, int) else text(data.get("item_id") or obj(data.get("item")).get("id"))

    def _added(self, data: Json) -> _Item:
        item = obj(data.get("item"))
        opened = self.out.start(step_type(item), head(item))
        made = self._items[self._key(data)] = _Item(opened, item)
        return made

    def _under_way(self, data: Json, type: str) -> _Item:
        found = self._items.get(self._key(data))
        if found is None:
            found = self._added({**data, "item": {"type": type, "id": data.get("item_id")}})
        return found

    def _delta(self, data: Json, kind: str) -> None:
        said = text(data.get("delta"))
        if kind == "text":
            self.out.delta(self._under_way(data, "message").opened, "text", said)
        else:
            self.out.delta(self._under_way(data, "function_call").opened, "arguments", said)

    def _thought(self, data: Json, kind: str) -> None:
        found = self._under_way(data, "reasoning")
        raw = kind == "response.reasoning_text.delta"
        found.streamed.add(kind)
        if raw and len(found.streamed) > 1:
            return  # where there is a summary, the raw text stays in the provider's state
        part = data.get("summary_index", data.get("content_index"))
        if found.opened.pieces and (self._key(data), part) not in self._parts:
            self.out.delta(found.opened, "thought_summary", "\n\n")
        self._parts.add((self._key(data), part))
        self.out.delta(found.opened, "thought_summary", text(data.get("delta")))

    def _done_item(self, data: Json) -> None:
        found = self._items.get(self._key(data)) or self._added(data)
        if not found.done:
            self._close_item(found, {**found.item, **obj(data.get("item"))})

    def _close_item(self, found: _Item, item: Json) -> None:
        found.done = True
        first, *more = steps(item, self.state(), said=found.opened.text)
        if first.type == "function_call":
            self._has_calls = True
        if first.state and first.state.get("refusal"):
            self._refusal += text(first.state["refusal"])
        # A web search becomes known as the opening of a page only at its end.
        found.opened.type = first.type
        self.out.finish(found.opened, first)
        for step in more:
            self.out.whole(step, {"call_id": step.body.get("call_id")})

    # -- the response --------------------------------------------------------------------------------------------

    def _head(self, response: Json) -> None:
        self.response_id = text(response.get("id")) or self.response_id
        self.model = text(response.get("model")) or self.model

    def _end_response(self, response: Json, kind: str) -> None:
        self._head(response)
        status = text(response.get("status")) or kind.removeprefix("response.")
        status = "completed" if status in ("complete", "done") else status
        if status == "failed" or (response.get("error") and status not in ("completed", "incomplete")):
            raise to_error(self.provider, fault_of({"error": response.get("error") or "the response failed"}))
        seen = {text(found.item.get("id")) for found in self._items.values() if found.done}
        for index, item in enumerate(objs(response.get("output"))):
            found = self._items.get(index)
            if found is None and text(item.get("id")) not in seen - {""}:
                found = self._added({"item": item, "output_index": index})
            if found is not None and not found.done:
                self._close_item(found, item)
        for found in self._items.values():
            if not found.done:
                self._close_item(found, found.item)
        usage = read_usage(obj(response["usage"])) if response.get("usage") else None
        reason, raw, detail = self._why(status, response)
        self.finish(reason, raw, usage, detail=detail)

    def _why(self, status: str, response: Json) -> tuple[FinishReason, str, str | None]:
        if status == "incomplete":
            raw = text(obj(response.get("incomplete_details")).get("reason")) or status
            return _INCOMPLETE.get(raw, "unknown"), raw, None
        if status != "completed":
            return "unknown", status, None
        if self._has_calls:
            return "tool_calls", status, None
        if self._refusal:
            return "refusal", status, self._refusal
        return "stop", status, None


def read_usage(usage: Json) -> Usage:
    """Usage of a response; output without its reasoning."""
    given, made = count(usage.get("input_tokens")), count(usage.get("output_tokens"))
    thought = count(obj(usage.get("output_tokens_details")).get("reasoning_tokens"))
    read = obj(usage.get("input_tokens_details"))
    if made is not None and thought:
        made = max(0, made - thought)
    total = count(usage.get("total_tokens"))
    if total is None and given is not None and made is not None:
        total = given + made + (thought or 0)
    return Usage(
        given, made, thought, count(read.get("cached_tokens")), count(read.get("cache_write_tokens")), None, total
    )
