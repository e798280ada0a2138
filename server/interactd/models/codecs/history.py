"""A conversation as every wire wants it: turns that alternate, each call with its result, and text for what a
provider cannot read."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast
from urllib.parse import unquote_to_bytes

from interactd.models.codecs.shapes import arr, obj
from interactd.nouns import Json, Step, text_content, user_input

EARLIER = "(The beginning of this conversation is not included.)"
EMPTY = "(empty message)"
UNANSWERED = "This call was not answered."
MEDIA = frozenset({"image", "audio", "video", "document"})

_MAGIC = {
    "iVBOR": "image/png",
    "/9j/": "image/jpeg",
    "R0lGOD": "image/gif",
    "UklGR": "image/webp",
    "JVBERi": "application/pdf",
}
_SUFFIX = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "webp": "image/webp",
    "pdf": "application/pdf",
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
    "mp4": "video/mp4",
    "txt": "text/plain",
    "md": "text/markdown",
}
_DEFAULT_MIME = {"image": "image/png", "audio": "audio/wav", "video": "video/mp4", "document": "application/pdf"}


@dataclass(slots=True)
class Turn:
    """Consecutive steps of one side: a model turn's `steps`; or a user turn's `results` (one for each call of the
    turn before, in the order of the calls) and `inputs` (user_input steps)."""

    role: Literal["user", "model"]
    steps: list[Step] = field(default_factory=list[Step])
    results: list[Step] = field(default_factory=list[Step])
    inputs: list[Step] = field(default_factory=list[Step])

    @property
    def content(self) -> list[Json]:
        """The contents of the user's inputs, in order."""
        return [obj(part) for step in self.inputs for part in arr(step.body.get("content"))]


def turns(steps: Iterable[Step]) -> list[Turn]:
    """Group steps into turns that alternate.

    Every function_call gets exactly one result, directly after its turn: late ones are moved up, missing ones
    are said to be missing. A result without a call (its turn was trimmed away) becomes user text.
    """
    steps = list(steps)
    results: dict[Any, deque[Step]] = {}
    for step in steps:
        if step.type == "function_result":
            results.setdefault(step.body.get("call_id"), deque()).append(step)
    called: set[Any] = set()
    out: list[Turn] = []

    def user() -> Turn:
        if not out:
            out.append(Turn("user"))
        elif out[-1].role == "model":
            out.append(Turn("user", results=[_answer(call, results) for call in calls(out[-1])]))
        return out[-1]

    for step in steps:
        if step.type == "user_input":
            user().inputs.append(step)
        elif step.type == "function_result":
            turn = user()
            if step.body.get("call_id") not in called:
                name = step.body.get("name") or "a function"
                turn.inputs.append(user_input(f"Result of an earlier call of {name}:\n{result_text(step.body)}"))
        else:
            if not out or out[-1].role == "user":
                out.append(Turn("model"))
            out[-1].steps.append(step)
            if step.type == "function_call":
                called.add(step.body.get("id"))
    if out and out[-1].role == "model" and calls(out[-1]):
        user()
    return out


def calls(turn: Turn) -> list[Step]:
    """The function_call steps of a model turn."""
    return [step for step in turn.steps if step.type == "function_call"]


def _answer(call: Step, results: dict[Any, deque[Step]]) -> Step:
    waiting = results.get(call.body.get("id"))
    name = call.body.get("name")
    if waiting:
        found = waiting.popleft()
        return Step(found.type, {"name": name, **found.body}, found.state)
    body = {"call_id": call.body.get("id"), "name": name, "result": UNANSWERED, "is_error": True}
    return Step("function_result", body)


class WireIds:
    """Call ids as a wire accepts them: characters and length it allows, and none twice in one conversation
    (some servers count from zero in each response)."""

    def __init__(self, allowed: str = r"[A-Za-z0-9_-]{1,64}", *, prefix: str = "call_", digits: int = 24) -> None:
        self._allowed = re.compile(allowed)
        self._prefix = prefix
        self._digits = digits
        self._used: set[str] = set()
        self._now: dict[str, str] = {}

    def call(self, id: Any) -> str:
        """The wire's id for a call; its result must ask `result` before another call has the same id."""
        given = str(id or "")
        wire = given if self._allowed.fullmatch(given) else self._hash(given)
        while wire in self._used:
            wire = self._hash(f"{wire}/{len(self._used)}")
        self._used.add(wire)
        self._now[given] = wire
        return wire

    def result(self, id: Any) -> str:
        """The wire's id of the call that this result belongs to."""
        given = str(id or "")
        return self._now.get(given) or self.call(given)

    def _hash(self, text: str) -> str:
        return self._prefix + hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[: self._digits]


def own_state(step: Step, provider: str) -> Json | None:
    """The step's opaque state if this provider made it, else `None`."""
    return step.state if step.state is not None and step.state.get("provider") == provider else None


def media_of(part: Json) -> Media:
    """Read an image, audio, video or document content; a data URI is taken apart."""
    kind = str(part.get("type"))
    data, uri, mime = part.get("data"), part.get("uri"), part.get("mime_type")
    if isinstance(uri, str) and uri.startswith("data:"):
        head, _, payload = uri[5:].partition(",")
        mime = mime or head.partition(";")[0]
        data, uri = payload if ";base64" in head else base64.b64encode(unquote_to_bytes(payload)).decode(), None
    if not mime and isinstance(data, str):
        mime = next((mime for magic, mime in _MAGIC.items() if data.startswith(magic)), None)
    if not mime and isinstance(uri, str):
        mime = _SUFFIX.get(uri.partition("?")[0].rpartition(".")[2].lower())
    return Media(kind, str(mime or _DEFAULT_MIME.get(kind, "application/octet-stream")), data, uri)


@dataclass(slots=True)
class Media:
    """An image, sound, video or document: inline (`data`, base64) or by address (`uri`)."""

    kind: str
    mime: str
    data: str | None = None
    uri: str | None = None

    @property
    def url(self) -> str:
        """The address, or a data URI."""
        return self.uri or f"data:{self.mime};base64,{self.data or ''}"

    @property
    def omitted(self) -> str:
        """What to say to a model that cannot take it."""
        where = f" at {self.uri}" if self.uri else ""
        return f"({self.kind} {self.mime}{where}: this model cannot read it)"


def content_of(result: Any) -> list[Json] | None:
    """The contents of a function result that is a list of Content, else `None`."""
    if not isinstance(result, list) or not result:
        return None
    items = cast("list[Any]", result)
    if all(isinstance(item, dict) and cast("Json", item).get("type") in MEDIA | {"text"} for item in items):
        return cast("list[Json]", items)
    return None


def result_text(body: Json) -> str:
    """A function_result as text; media are named, not spelt out."""
    result = body.get("result")
    parts = content_of(result)
    if parts is not None:
        said = "\n".join(part.get("text") or "" if part["type"] == "text" else media_of(part).omitted for part in parts)
    else:
        said = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
    return f"Error: {said}" if body.get("is_error") and not said.lower().startswith("error") else said


def result_media(body: Json) -> list[Media]:
    """The media of a function_result."""
    return [media_of(part) for part in content_of(body.get("result")) or [] if part["type"] in MEDIA]


def output_parts(step: Step) -> list[Json]:
    """A model_output's contents as text parts only: other wires hold no images of the model."""
    parts = [obj(part) for part in arr(step.body.get("content"))]
    return [part if part.get("type") == "text" else text_content(media_of(part).omitted) for part in parts]


def as_text(step: Step) -> str:
    """A step of another provider's model as plain text; empty for what means nothing elsewhere (its thoughts)."""
    if step.type == "model_output":
        return "".join(part.get("text") or "" for part in output_parts(step))
    if step.type in ("thought", "opaque"):
        return ""
    body = step.body
    if step.type.endswith("_result"):
        said = result_text(body)
        said = said if len(said) <= 4000 else said[:4000] + "..."
        return f"[{step.type}: {said}]"
    if step.type.endswith("_call"):
        name = f" {body['name']}" if body.get("name") else ""
        return f"[{step.type}{name}: {json.dumps(body.get('arguments') or {}, ensure_ascii=False)}]"
    return ""


def tail_of(turn: Turn, kinds: Sequence[str]) -> bool:
    """Whether the model turn begins with one of these kinds of step."""
    return bool(turn.steps) and turn.steps[0].type in kinds
