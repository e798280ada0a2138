"""Reading chat completions: chunks of a stream, or a whole body."""

from __future__ import annotations

from typing import Any

from interactd.errors import ProviderUnavailable
from interactd.models.codecs.chat.request import echoed, images
from interactd.models.codecs.emit import OpenStep, StreamParser
from interactd.models.codecs.faults import fault_of, redact, to_error
from interactd.models.codecs.shapes import (
    Misfit,
    arr,
    count,
    mint_call_id,
    obj,
    objs,
    parse_arguments,
    text,
)
from interactd.models.port import FinishReason, ModelRequest
from interactd.nouns import Json, Step, Usage, text_content

_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "tool_use": "tool_calls",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "content_filter": "content_filter",
    "refusal": "refusal",
}
_FAILED = frozenset({"error", "insufficient_system_resource"})
_THINK, _END_THINK = "<think>", "</think>"


class ChatParser(StreamParser):
    """One answer. Only the first choice is read: we never ask for more."""

    def __init__(self, provider: str, request: ModelRequest) -> None:
        super().__init__(provider, request)
        self._thought: OpenStep | None = None
        self._output: OpenStep | None = None
        self._calls: list[OpenStep] = []
        self._echo: Json = {}
        self._images: list[Json] = []
        self._annotations: list[Json] = []
        self._refusal = ""
        self._usage: Usage | None = None
        self._reason: str | None = None
        self._tags: str | None = ""
        """What came before it is clear whether the text begins with a <think> tag; `None` once that is clear."""
        self._in_tags = False
        self._after_tags = False
        self._seen_done = False

    def read(self, event: str | None, data: Json) -> None:
        if event == "error" or data.get("error"):
            raise to_error(self.provider, fault_of(data))
        self._head(data)
        choices = objs(data.get("choices"))
        if "choices" not in data and not data.get("usage") and "object" not in data and "id" not in data:
            raise Misfit("a chunk without choices")
        for choice in choices:
            if choice.get("index") in (None, 0):
                self._message(obj(choice.get("delta") if "delta" in choice else choice.get("message")))
                self._finished(choice)
        if self._reason is not None and not choices and data.get("usage"):
            # The last word where usage was asked for; some servers then keep the connection open.
            self._conclude()

    def read_body(self, body: Json) -> None:
        if body.get("error"):
            raise to_error(self.provider, fault_of(body))
        self._head(body)
        choices = objs(body.get("choices"))
        if not choices:
            raise Misfit("no choices")
        if "message" not in choices[0]:
            raise Misfit("a choice without a message")
        self._message(obj(choices[0]["message"]))
        self._finished(choices[0])
        self._conclude()

    def close(self) -> bool:
        if self._reason is None and not self._seen_done:
            return False
        self._conclude()
        return True

    def _done(self) -> None:
        self._seen_done = True
        self._conclude()

    # -- parts of a chunk ----------------------------------------------------------------------------------------

    def _head(self, data: Json) -> None:
        self.response_id = self.response_id or text(data.get("id")) or None
        self.model = text(data.get("model")) or self.model
        usage = data.get("usage") or obj(data.get("x_groq")).get("usage")
        if usage:
            self._usage = read_usage(obj(usage))

    def _finished(self, choice: Json) -> None:
        if reason := choice.get("finish_reason"):
            self._reason = text(reason)
        if choice.get("error"):
            raise to_error(self.provider, fault_of(choice))
        if choice.get("usage"):
            self._usage = read_usage(obj(choice["usage"]))
        if self._reason in _FAILED:
            raise ProviderUnavailable(
                f"{self.provider} broke off: {redact(self._reason or '')}",
                repair="Send it again in a moment, or use another model.",
                provider=self.provider,
            )

    def _message(self, delta: Json) -> None:
        for name in ("reasoning_content", "reasoning"):
            if isinstance(delta.get(name), str) and delta[name]:
                self._think(name, delta[name])
                break
        self._keep(delta)
        content = delta.get("content")
        if isinstance(content, list):
            for part in objs(content):
                self._content_part(part)
        elif content:
            self._say(text(content))
        if refusal := text(delta.get("refusal")):
            self._refusal += refusal
            self._write(refusal)
        self._images.extend(images(delta))
        self._annotations.extend(objs(delta.get("annotations")))
        for call in arr(delta.get("tool_calls")):
            self._call(obj(call))
        if delta.get("function_call"):
            self._call({"index": 0, "function": delta["function_call"]})

    def _content_part(self, part: Json) -> None:
        if part.get("type") == "thinking":
            inner = part.get("thinking")
            said = inner if isinstance(inner, str) else "".join(text(item.get("text")) for item in objs(inner))
            self._think("content", said)
        elif part.get("type") in ("text", None):
            self._say(text(part.get("text")))

    def _keep(self, delta: Json) -> None:
        for name, value in echoed(delta).items():
            if name == "reasoning_details":
                self._echo[name] = merge_details(self._echo.get(name, []), value)
            else:
                self._echo[name] = value

    def _think(self, field: str, said: str) -> None:
        thinking = self._thought is not None and self._thought.step is None
        if not thinking:
            said = said.lstrip() if field == "tags" else said
        if not (said if thinking else said.strip()):
            return
        if self._thought is None or self._thought.step is not None:
            self._thought = self.out.start("thought")
            self._thought.keep["field"] = field
        self.out.delta(self._thought, "thought_summary", said)

    def _say(self, said: str) -> None:
        """Text, unless it opens with the tags in which some servers leave their model's thoughts."""
        if self._tags is None:
            return self._write(said)
        if self._in_tags:
            return self._inside(said)
        self._tags += said
        head = self._tags.lstrip()
        if head.startswith(_THINK):
            self._in_tags, self._tags = True, ""
            return self._inside(head[len(_THINK) :])
        if not head or _THINK.startswith(head):
            return None
        held, self._tags = self._tags, None
        return self._write(held)

    def _inside(self, said: str) -> None:
        self._tags = (self._tags or "") + said
        before, tag, after = self._tags.partition(_END_THINK)
        if tag:
            self._think("tags", before.rstrip() if before.strip() else "")
            self._tags, self._in_tags, self._after_tags = None, False, True
            return self._write(after)
        # Only as much as cannot be the beginning of the closing tag.
        keep = next((n for n in range(len(_END_THINK) - 1, 0, -1) if before.endswith(_END_THINK[:n])), 0)
        shown, self._tags = (before[:-keep], before[-keep:]) if keep else (before, "")
        if shown:
            self._think("tags", shown)

    def _write(self, said: str) -> None:
        if self._after_tags:
            said = said.lstrip()
            if not said:
                return
            self._after_tags = False
        self._end_thought()
        if self._output is None:
            self._output = self.out.start("model_output")
        self.out.delta(self._output, "text", said)

    def _call(self, call: Json) -> None:
        function = obj(call.get("function"))
        id, name, index = text(call.get("id")), text(function.get("name")), call.get("index")
        opened = self._same_call(id, name, index)
        if opened is None:
            if not (id or name or function.get("arguments")):
                return  # a place kept for a call that never came
            self._end_thought()
            id = id or mint_call_id()
            opened = self.out.start("function_call", {"id": id, "name": name})
            opened.keep = {"id": id, "given": bool(call.get("id")), "index": index, "name": name, "extra": {}}
            self._calls.append(opened)
        elif not opened.keep["name"]:
            opened.keep["name"] = name
        known = ("index", "id", "type", "function")
        opened.keep["extra"].update({k: v for k, v in call.items() if k not in known and v is not None})
        arguments = function.get("arguments")
        if isinstance(arguments, dict):
            opened.keep["object"] = arguments
        elif arguments:
            self.out.delta(opened, "arguments", text(arguments))

    def _same_call(self, id: str, name: str, index: Any) -> OpenStep | None:
        """The open call that a fragment belongs to. Servers count differently: by index, by id only, or by neither."""
        if index is None:
            last = self._calls[-1] if self._calls else None
            same = last is not None and (id == last.keep["id"] if id else not name)
            return last if same else None
        for opened in reversed(self._calls):
            if opened.keep["index"] == index:
                # Another id under the same index is another call: some servers say index 0 for all of them.
                return None if id and opened.keep["given"] and id != opened.keep["id"] else opened
        return None

    # -- the end -------------------------------------------------------------------------------------------------

    def _end_thought(self) -> None:
        if (opened := self._thought) is not None and opened.step is None:
            said = opened.text
            field = opened.keep["field"]
            message: Json = {field: said} if field.startswith("reasoning") and said else {}
            step = Step("thought", {"summary": [text_content(said)] if said else []}, self.state(field=field))
            if message:
                step.state = self.state(field=field, message=message)
            self.out.finish(opened, step)

    def _conclude(self) -> None:
        if self.finished:
            return
        if self._tags:
            held, inside, self._tags = self._tags, self._in_tags, None
            if inside:
                self._think("tags", held)
            elif held.strip():
                self._write(held)
        self._end_thought()
        if self._images and self._output is None:
            self._output = self.out.start("model_output")
        self._attach_echo()
        if self._output is not None:
            self._end_output(self._output)
        for opened in self._calls:
            self._end_call(opened)
        reason = self._why()
        self.finish(reason, self._reason, self._usage, detail=self._refusal or None)

    def _attach_echo(self) -> None:
        """Fields to send back with the message travel on the first step that stands for it."""
        if not self._echo:
            return
        holder = self._output or (self._calls[0] if self._calls else None)
        if holder is not None:
            holder.keep["echo"] = self._echo
        else:
            self.out.whole(Step("thought", {"summary": []}, self.state(message=self._echo)))

    def _end_output(self, opened: OpenStep) -> None:
        said = opened.text
        content: list[Json] = []
        if said:
            part = text_content(said)
            if self._annotations:
                part["annotations"] = [annotation(item, said) for item in self._annotations]
            content.append(part)
        state: Json | None = None
        if self._refusal or "echo" in opened.keep:
            state = self.state()
            if self._refusal:
                state["refusal"] = True
            if "echo" in opened.keep:
                state["message"] = opened.keep["echo"]
        self.out.finish(opened, Step("model_output", {"content": content + self._images}, state))

    def _end_call(self, opened: OpenStep) -> None:
        keep = opened.keep
        arguments, raw = parse_arguments(keep.get("object") or opened.text)
        body: Json = {"id": keep["id"], "name": keep["name"], "arguments": arguments}
        if raw is not None:
            body["raw_arguments"] = raw
        state: Json | None = None
        if keep["extra"] or "echo" in keep:
            state = self.state()
            if keep["extra"]:
                state["call"] = keep["extra"]
            if "echo" in keep:
                state["message"] = keep["echo"]
        self.out.finish(opened, Step("function_call", body, state))

    def _why(self) -> FinishReason:
        if self._reason is None:
            return "unknown"
        reason = _REASONS.get(self._reason.lower(), "unknown")
        if self._refusal and reason == "stop":
            return "refusal"
        if self._calls and reason == "stop":
            return "tool_calls"
        if reason == "tool_calls" and not self._calls:
            return "stop" if self._output is not None else "unknown"
        return reason


def read_usage(usage: Json) -> Usage:
    """Usage as chat servers give it. Output is without thoughts, whichever way the server counts them."""
    given, made, total = (count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens", "total_tokens"))
    details = obj(usage.get("completion_tokens_details"))
    read = obj(usage.get("prompt_tokens_details"))
    thought = count(details.get("reasoning_tokens"))
    if made is not None and thought and not (given is not None and total == given + made + thought):
        made = max(0, made - thought)
    cached = next(
        (
            v
            for v in map(
                count, (read.get("cached_tokens"), usage.get("prompt_cache_hit_tokens"), usage.get("cached_tokens"))
            )
            if v is not None
        ),
        None,
    )
    if total is None and given is not None and made is not None:
        total = given + made + (thought or 0)
    return Usage(given, made, thought, cached, count(read.get("cache_write_tokens")), None, total)


def merge_details(known: list[Json], new: list[Json]) -> list[Json]:
    """Join streamed reasoning_details: fragments of one index and type become one entry."""
    out = list(known)
    for item in new:
        last = out[-1] if out else None
        if last is not None and last.get("type") == item.get("type") and last.get("index") == item.get("index"):
            merged = dict(last)
            for name, value in item.items():
                joins = (
                    name in ("text", "summary", "data") and isinstance(value, str) and isinstance(merged.get(name), str)
                )
                if value is not None:
                    merged[name] = merged[name] + value if joins else value
            out[-1] = merged
        else:
            out.append(item)
    return out


def annotation(item: Json, said: str) -> Json:
    """An OpenAI annotation as the Interactions API has it: flat, with byte offsets."""
    kind = text(item.get("type"))
    inner = obj(item.get(kind)) if isinstance(item.get(kind), dict) else item
    out: Json = {"type": kind, **{k: v for k, v in inner.items() if k != "type"}}
    for name in ("start_index", "end_index"):
        if isinstance(offset := out.get(name), int):
            out[name] = len(said[: max(0, offset)].encode("utf-8", "replace"))
    return out
