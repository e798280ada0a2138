"""Reading Gemini's generateContent: the chunks of a stream, or a whole response."""

from __future__ import annotations

from interactd.models.codecs.emit import OpenStep, StreamParser
from interactd.models.codecs.faults import fault_of, to_error
from interactd.models.codecs.generate.parts import citation_notes, grounding_steps, media_content, tool_step
from interactd.models.codecs.shapes import Misfit, count, mint_call_id, obj, objs, parse_arguments, text
from interactd.models.port import FinishReason, ModelRequest
from interactd.nouns import Json, Step, Usage, text_content

_REASONS: dict[str, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
}


class GenerateParser(StreamParser):
    """One answer. A run of text parts is one model_output step, a run of thought parts one thought step; a part
    that carries a signature keeps its own place in the step's state, because it must come back exactly there."""

    def __init__(self, provider: str, request: ModelRequest) -> None:
        super().__init__(provider, request)
        self._run: OpenStep | None = None
        self._seen: set[str] = set()
        self._code: str | None = None
        self._calls = 0
        self._grounding: Json = {}
        self._urls: Json = {}
        self._usage: Json = {}
        self._reason: str | None = None
        self._detail: str | None = None
        self._blocked: str | None = None
        self._last_output: OpenStep | None = None

    def read(self, event: str | None, data: Json) -> None:
        if data.get("error"):
            raise to_error(self.provider, fault_of(data))
        known = ("candidates", "promptFeedback", "usageMetadata", "modelVersion", "responseId")
        if not any(name in data for name in known):
            raise Misfit("a chunk without candidates")
        self.response_id = text(data.get("responseId")) or self.response_id
        self.model = text(data.get("modelVersion")) or self.model
        usage = obj(data.get("usageMetadata"))
        self._usage.update({name: value for name, value in usage.items() if value is not None})
        feedback = obj(data.get("promptFeedback"))
        if reason := text(feedback.get("blockReason")):
            self._blocked = reason
            self._detail = text(feedback.get("blockReasonMessage")) or f"The prompt was blocked: {reason}."
        for candidate in objs(data.get("candidates")):
            if candidate.get("index") in (None, 0):
                self._candidate(candidate)

    def read_body(self, body: Json) -> None:
        self.read(None, body)
        if self._reason is None and self._blocked is None and not body.get("candidates"):
            raise Misfit("neither candidates nor a reason why there are none")
        self._conclude()

    def close(self) -> bool:
        if self._reason is None and self._blocked is None:
            return False
        self._conclude()
        return True

    def _conclude(self) -> None:
        self._end_run()
        for step in grounding_steps(self._grounding, self._urls, self.state(), self._seen):
            self.out.whole(step, {"id": step.body["id"]} if "id" in step.body else {})
        usage = read_usage(self._usage) if self._usage else None
        if self._blocked is not None:
            return self.finish("content_filter", self._blocked, usage, detail=self._detail)
        reason = _REASONS.get(self._reason or "", "unknown")
        if reason == "stop" and self._calls:
            reason = "tool_calls"
        self.finish(reason, self._reason, usage, detail=self._detail)

    # -- parts ---------------------------------------------------------------------------------------------------

    def _candidate(self, candidate: Json) -> None:
        for part in objs(obj(candidate.get("content")).get("parts")):
            self._part(part)
        for name, value in obj(candidate.get("groundingMetadata")).items():
            if value:
                self._grounding[name] = value
        for name, value in obj(candidate.get("urlContextMetadata")).items():
            if value:
                self._urls[name] = value
        if reason := text(candidate.get("finishReason")):
            self._reason = reason
            told = text(candidate.get("finishMessage"))
            if reason != "STOP":
                self._detail = told or _safety(candidate) or None

    def _part(self, part: Json) -> None:
        if "functionCall" in part:
            self._function_call(part)
        elif "text" in part:
            self._text(part)
        elif (content := media_content(part)) is not None:
            self._into("model_output").keep["content"].append(content)
            self._remember(part, "")
        else:
            self._tool(part)

    def _text(self, part: Json) -> None:
        said = text(part.get("text"))
        signature = part.get("thoughtSignature")
        if not said:
            if not signature:
                return
            if self._run is None:
                # A signature that came alone still has to go back in its place.
                self._into("thought")
            return self._remember(part, "")
        kind = "thought" if part.get("thought") else "model_output"
        opened = self._into(kind)
        content = opened.keep["content"]
        if content and content[-1].get("type") == "text":
            content[-1]["text"] += said
        else:
            content.append(text_content(said))
        self.out.delta(opened, "text" if kind == "model_output" else "thought_summary", said)
        self._remember(part, said)

    def _into(self, kind: str) -> OpenStep:
        if self._run is None or self._run.type != kind:
            self._end_run()
            self._run = self.out.start(kind)
            self._run.keep = {"content": [], "parts": []}
            if kind == "model_output":
                self._last_output = self._run
        return self._run

    def _remember(self, part: Json, said: str) -> None:
        if self._run is None:
            return
        parts: list[Json] = self._run.keep["parts"]
        plain = set(part) <= {"text", "thought"}
        if said and plain and parts and set(parts[-1]) <= {"text", "thought"}:
            parts[-1]["text"] += said
        else:
            parts.append(dict(part))

    def _end_run(self) -> None:
        opened, self._run = self._run, None
        if opened is None:
            return
        content, parts = opened.keep["content"], opened.keep["parts"]
        signed = any("thoughtSignature" in part for part in parts)
        if opened.type == "thought":
            self.out.finish(opened, Step("thought", {"summary": content}, self.state(parts=parts)))
            return
        if opened is self._last_output and (notes := citation_notes(self._grounding)):
            first = next((part for part in content if part.get("type") == "text"), None)
            if first is not None:
                first["annotations"] = notes
        # Pictures are kept once, in the body; `request` puts them back by their place.
        slim: list[Json] = []
        pictures = 0
        for part in parts:
            if "inlineData" in part or "fileData" in part:
                slim.append(
                    {**{k: v for k, v in part.items() if k not in ("inlineData", "fileData")}, "media": pictures}
                )
                pictures += 1
            else:
                slim.append(part)
        keep = signed or pictures > 0 or len(parts) > 1
        self.out.finish(opened, Step("model_output", {"content": content}, self.state(parts=slim) if keep else None))

    def _function_call(self, part: Json) -> None:
        self._end_run()
        call = obj(part["functionCall"])
        given = text(call.get("id"))
        arguments, raw = parse_arguments(call.get("args"))
        body: Json = {"id": given or mint_call_id(), "name": text(call.get("name")), "arguments": arguments}
        if raw is not None:
            body["raw_arguments"] = raw
        more = {name: value for name, value in part.items() if name != "functionCall"}
        state = self.state(part=more, minted=not given)
        opened = self.out.start("function_call", {"id": body["id"], "name": body["name"]})
        self.out.finish(opened, Step("function_call", body, state))
        self._calls += 1

    def _tool(self, part: Json) -> None:
        if not set(part) - {"thought"}:
            return
        self._end_run()
        step = tool_step(part, self.state(), self._code)
        if step is None:
            kind = next((name for name in part if name not in ("thought", "thoughtSignature")), "signature")
            kind = "thought" if kind == "signature" else kind
            if kind == "thought":
                return self.out.whole(Step("thought", {"summary": []}, self.state(parts=[part])))
            return self.out.whole(Step("opaque", {"kind": kind}, self.state(part=part)))
        if step.type == "code_execution_call":
            self._code = step.body["id"]
        self._seen.add(step.type)
        names = ("id", "call_id")
        self.out.whole(step, {name: step.body[name] for name in names if name in step.body})


def _safety(candidate: Json) -> str:
    blocked = [text(r.get("category")) for r in objs(candidate.get("safetyRatings")) if r.get("blocked")]
    return f"Blocked for {', '.join(blocked)}." if blocked else ""


def read_usage(usage: Json) -> Usage:
    """Usage of an answer: Google counts thoughts and tool use apart from the output already."""
    given, made, thought, cached, tools, total = (
        count(usage.get(name))
        for name in (
            "promptTokenCount",
            "candidatesTokenCount",
            "thoughtsTokenCount",
            "cachedContentTokenCount",
            "toolUsePromptTokenCount",
            "totalTokenCount",
        )
    )
    if total is None and given is not None:
        total = given + (made or 0) + (thought or 0) + (tools or 0)
    return Usage(given, made, thought, cached, None, tools, total)
