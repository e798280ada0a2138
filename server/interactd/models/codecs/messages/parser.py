"""Reading Anthropic messages: the event stream, or a whole message."""

from __future__ import annotations

from interactd.models.codecs.emit import OpenStep, StreamParser
from interactd.models.codecs.faults import fault_of, to_error
from interactd.models.codecs.messages.blocks import citation_notes, head, step_type, to_step
from interactd.models.codecs.shapes import Misfit, count, obj, objs, text
from interactd.models.port import FinishReason, ModelRequest
from interactd.nouns import Json, Step, Usage, text_content

_REASONS: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",
    "refusal": "refusal",
}
_DETAILS = {
    "model_context_window_exceeded": "The model's context window is full.",
    "pause_turn": "The provider paused a long turn; another turn goes on with it.",
}


class MessagesParser(StreamParser):
    """One message. Neighbouring text blocks (citations cut text into several) are one model_output step."""

    def __init__(self, provider: str, request: ModelRequest) -> None:
        super().__init__(provider, request)
        self._blocks: dict[object, tuple[Json, OpenStep]] = {}
        self._texts: list[Json] = []
        self._output: OpenStep | None = None
        self._usage: Json = {}
        self._reason: str | None = None
        self._details: Json = {}
        self._container: Json = {}

    def read(self, event: str | None, data: Json) -> None:
        kind = text(data.get("type")) or event or ""
        if kind == "content_block_delta":
            self._delta(data)
        elif kind == "content_block_start":
            self._start(data.get("index"), dict(obj(data.get("content_block"))))
        elif kind == "content_block_stop":
            self._stop(data.get("index"))
        elif kind == "message_start":
            self._head(obj(data.get("message")))
            # What it will have written is not known yet: a figure here must not pass for the last one.
            self._usage.pop("output_tokens", None)
        elif kind == "message_delta":
            self._ending(obj(data.get("delta")))
            self._count(obj(data.get("usage")))
        elif kind == "message_stop":
            self._conclude()
        elif kind == "error" or data.get("error"):
            raise to_error(self.provider, fault_of(data))
        elif not kind:
            raise Misfit("an event without a type")

    def read_body(self, body: Json) -> None:
        if body.get("type") == "error" or body.get("error"):
            raise to_error(self.provider, fault_of(body))
        if "content" not in body:
            raise Misfit("no content")
        self._head(body)
        self._ending(body)
        for index, block in enumerate(objs(body["content"])):
            said = text(block.get("text")) if block.get("type") == "text" else ""
            self._start(index, {**block, "text": ""} if said else dict(block))
            if said:
                self._say(self._blocks[index], said)
            self._stop(index)
        self._conclude()

    # -- the message ---------------------------------------------------------------------------------------------

    def _head(self, message: Json) -> None:
        self.response_id = text(message.get("id")) or self.response_id
        self.model = text(message.get("model")) or self.model
        self._count(obj(message.get("usage")))

    def _ending(self, delta: Json) -> None:
        self._reason = text(delta.get("stop_reason")) or self._reason
        self._details = obj(delta.get("stop_details")) or self._details
        self._container = obj(delta.get("container")) or self._container

    def _count(self, usage: Json) -> None:
        # Each figure is cumulative and the last one counts; an event may leave out what did not change.
        self._usage.update({name: value for name, value in usage.items() if value is not None})

    def _conclude(self) -> None:
        if self._reason is None:
            # A stop without a reason is not a completed message.
            self._end_output()
            return self.finish("unknown", None, read_usage(self._usage))
        for index in list(self._blocks):
            self._stop(index)
        self._end_output()
        detail = text(self._details.get("explanation")) or text(self._details.get("category"))
        reason = _REASONS.get(self._reason, "unknown")
        self.finish(reason, self._reason, read_usage(self._usage), detail=detail or _DETAILS.get(self._reason))

    # -- blocks --------------------------------------------------------------------------------------------------

    def _start(self, index: object, block: Json) -> None:
        if block.get("type") == "text":
            if self._output is None:
                self._output = self.out.start("model_output")
            self._blocks[index] = (block, self._output)
            if first := text(block.get("text")):
                block["text"] = ""
                self._say(self._blocks[index], first)
            return
        self._end_output()
        self._blocks[index] = (block, self.out.start(step_type(block), head(block)))
        if said := text(block.get("thinking")) if block.get("type") == "thinking" else "":
            self.out.delta(self._blocks[index][1], "thought_summary", said)
            self._blocks[index][1].keep["first"] = said

    def _say(self, entry: tuple[Json, OpenStep], said: str) -> None:
        block, opened = entry
        block["text"] = text(block.get("text")) + said
        self.out.delta(opened, "text", said)

    def _delta(self, data: Json) -> None:
        entry = self._blocks.get(data.get("index"))
        if entry is None:
            raise Misfit(f"a delta of a block that never began: {data.get('index')}")
        block, opened = entry
        delta = obj(data.get("delta"))
        kind = text(delta.get("type"))
        if kind == "text_delta":
            self._say(entry, text(delta.get("text")))
        elif kind == "thinking_delta":
            self.out.delta(opened, "thought_summary", text(delta.get("thinking")))
        elif kind == "signature_delta":
            block["signature"] = text(block.get("signature")) + text(delta.get("signature"))
        elif kind == "input_json_delta":
            self.out.delta(opened, "arguments", text(delta.get("partial_json")))
        elif kind == "citations_delta":
            block["citations"] = [*objs(block.get("citations")), obj(delta.get("citation"))]
        else:
            # A kind of block from after our time: its deltas are kept with it.
            block.setdefault("deltas", []).append(delta)

    def _stop(self, index: object) -> None:
        entry = self._blocks.pop(index, None)
        if entry is None:
            return
        block, opened = entry
        if block.get("type") == "text":
            self._texts.append(block)
            return
        said = opened.text
        if block.get("type") == "thinking":
            block["thinking"] = said
        state = self.state(**({"container": self._container["id"]} if self._container.get("id") else {}))
        self.out.finish(opened, to_step(block, state, raw_input=said if block.get("type") != "thinking" else None))

    def _end_output(self) -> None:
        opened, self._output = self._output, None
        if opened is None:
            return
        texts, self._texts = self._texts, []
        # Blocks of a text that never stopped (the stream broke off) still count.
        for index in [i for i, (block, _) in self._blocks.items() if block.get("type") == "text"]:
            texts.append(self._blocks.pop(index)[0])
        content: list[Json] = []
        cited = False
        for block in texts:
            said = text(block.get("text"))
            if not said:
                continue
            part = text_content(said)
            if citations := objs(block.get("citations")):
                cited = True
                part["annotations"] = citation_notes(citations, said)
            content.append(part)
        state = self.state(blocks=[block for block in texts if block.get("text")]) if cited else None
        self.out.finish(opened, Step("model_output", {"content": content}, state))


def read_usage(usage: Json) -> Usage | None:
    """Usage of a message: input with what was read from and written to the cache, output without thoughts."""
    if not usage:
        return None
    fresh, made = count(usage.get("input_tokens")), count(usage.get("output_tokens"))
    cached, written = count(usage.get("cache_read_input_tokens")), count(usage.get("cache_creation_input_tokens"))
    given = None if fresh is None else fresh + (cached or 0) + (written or 0)
    thought = count(obj(usage.get("output_tokens_details")).get("thinking_tokens"))
    total = given + made if given is not None and made is not None else None
    if made is not None and thought:
        made = max(0, made - thought)
    return Usage(given, made, thought, cached, written, None, total)
