"""The types of argument fields: each says what it takes, and how hosts may write it."""

from __future__ import annotations

import base64
import math
import re
from typing import Annotated, Any, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from interactd.errors import InvalidArgument
from interactd.ids import Kind, parse_prefix
from interactd.nouns import GenerationConfig, Json, ThinkingLevel
from interactd_tools.arguments.problems import shown

MAX_TEXT = 4_000_000
"""Characters of one input: what the largest windows hold. More is refused before it is stored."""
MAX_LINE = 200
MAX_LABELS = 32
MAX_TTL_S = 10 * 365 * 86400
DEFAULT_TOKENS = 2000
MAX_TOKENS = 8000
MAX_WAIT_S = 45


class Arguments(BaseModel):
    """Base of every tool's arguments: closed, and no guessing of types beyond what `tidy` did."""

    model_config = ConfigDict(extra="forbid", strict=True)


def refuse(expected: str, value: object) -> PydanticCustomError:
    """Return the error that reads `expected ..., got ...`."""
    return PydanticCustomError("refused", "expected {expected}, got {got}", {"expected": expected, "got": shown(value)})


def wrong(sentence: str) -> PydanticCustomError:
    """Return an error in words of its own."""
    return PydanticCustomError("refused", "{sentence}", {"sentence": sentence})


def _id(kind: Kind, example: str) -> tuple[object, ...]:
    def check(value: str) -> str:
        try:
            return parse_prefix(kind, value.strip().strip("\"'"))
        except InvalidArgument as error:
            raise wrong(error.message.partition(": ")[2]) from None

    return AfterValidator(check), {"x-expected": f"{'an' if kind[0] == 'i' else 'a'} {kind} id ({example}...)"}


_session_check, _session_extra = _id("session", "ses_")
_interaction_check, _interaction_extra = _id("interaction", "int_")
# That a unique prefix is enough is said once, in the server's instructions, and not in every tool.
SessionId = Annotated[str, _session_check, Field(json_schema_extra=cast("Any", _session_extra))]
InteractionId = Annotated[str, _interaction_check, Field(json_schema_extra=cast("Any", _interaction_extra))]


def _line(value: str) -> str:
    line = " ".join(value.split())
    if not line:
        raise refuse("some text", value)
    if len(line) > MAX_LINE:
        raise refuse(f"text of at most {MAX_LINE} characters", value)
    if not line.isprintable():
        raise refuse("text without control characters", value)
    return line


Line = Annotated[
    str, AfterValidator(_line), Field(json_schema_extra={"x-expected": f"one line of at most {MAX_LINE} characters"})
]
_CURSOR = "the cursor of an earlier result"


def pack_cursor(cursor: str | None) -> str | None:
    """Return the engine's cursor as a word that hosts leave alone and models copy right: no quotes, no JSON."""
    return None if cursor is None else base64.urlsafe_b64encode(cursor.encode()).decode().rstrip("=")


def _unpack(value: str) -> str:
    text = value.strip()
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode()
    except ValueError:
        raise refuse(_CURSOR, value) from None


Cursor = Annotated[
    str, AfterValidator(_unpack), Field(description="From the page before.", json_schema_extra={"x-expected": _CURSOR})
]


Key = Annotated[
    str,
    AfterValidator(_line),
    Field(
        description="Same key, same work.",
        json_schema_extra={"x-expected": f"a key of at most {MAX_LINE} characters"},
    ),
]


def _prose(value: str) -> str:
    if len(value) > MAX_TEXT:
        raise refuse(f"text of at most {MAX_TEXT:,} characters", value)
    return value


Prose = Annotated[str, AfterValidator(_prose)]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_TTL = "24h, 90m, 7d, forever, or seconds"
_DURATION = re.compile(
    r"(?:(\d+(?:\.\d+)?)\s*(w|d|h|m|s)(?:eeks?|ays?|ours?|rs?|in(?:ute)?s?|ec(?:ond)?s?)?\s*)", re.IGNORECASE
)


def _ttl(value: object) -> float | None:
    """Return seconds; 0 is for ever (as the engine takes it), `None` the default."""
    if value is None:
        return None
    seconds = float("nan")
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and len(value) <= 40:
        text = value.strip().lower()
        if text in ("forever", "never", "unlimited", "infinite"):
            return 0.0
        if re.fullmatch(r"\d+(\.\d+)?", text):
            seconds = float(text)
        elif re.fullmatch(f"(?:{_DURATION.pattern})+", text):
            seconds = sum(float(n) * _UNITS[unit] for n, unit in _DURATION.findall(text))
    if not math.isfinite(seconds) or seconds < 1:
        raise refuse(_TTL, value)
    if seconds > MAX_TTL_S:
        raise wrong(f"expected at most 3650d, or forever, got {shown(value)}")
    return seconds


Ttl = Annotated[
    float | None,
    BeforeValidator(_ttl),
    Field(
        description="How long it is kept after its last turn: 24h (default), 90m, 7d, forever, or seconds.",
        json_schema_extra={"schema": {"type": "string", "x-expected": _TTL}},
    ),
]


def _labels(value: object) -> object:
    if not isinstance(value, dict):
        return value
    labels = cast("dict[str, Any]", value)
    if len(labels) > MAX_LABELS:
        raise wrong(f"expected at most {MAX_LABELS} labels, got {len(labels):,}")
    out: dict[str, str] = {}
    for name, item in labels.items():
        if isinstance(item, int | float) and not isinstance(item, bool):
            item = str(item)
        if not isinstance(item, str) or len(item) > MAX_LINE:
            raise refuse(f"text of at most {MAX_LINE} characters for {shown(name)}", item)
        if not name.strip() or len(name) > 64:
            raise refuse("label names of 1 to 64 characters", name)
        if not (name.isprintable() and item.isprintable()):
            raise refuse("labels without control characters", item if name.isprintable() else name)
        out[name.strip()] = item.strip()
    return out


Labels = Annotated[
    dict[str, str],
    BeforeValidator(_labels),
    Field(json_schema_extra={"schema": {"type": "object", "additionalProperties": {"type": "string"}}}),
]

WaitS = Annotated[
    float,
    Field(
        ge=0,
        description=f"Seconds to wait, at most {MAX_WAIT_S}.",
        json_schema_extra={"schema": {"type": "number", "x-expected": f"seconds from 0 to {MAX_WAIT_S}"}},
    ),
]
MaxTokens = Annotated[
    int,
    Field(
        ge=100,
        description=f"Of content, at most {MAX_TOKENS}.",
        json_schema_extra={"schema": {"type": "integer", "x-expected": "a whole number of at least 100"}},
    ),
    AfterValidator(lambda n: min(n, MAX_TOKENS)),
]
Offset = Annotated[
    int, Field(ge=0, json_schema_extra={"schema": {"type": "integer", "x-expected": "a whole number of at least 0"}})
]


def _choice(*choices: str) -> Any:
    return Field(
        pattern=f"^({'|'.join(choices)})$", json_schema_extra={"schema": {"type": "string", "enum": [*choices]}}
    )


def _plain(kind: str, expected: str) -> dict[str, Any]:
    """Publish a bare type, with what it takes only in the error: limits nobody meets cost tokens in every list."""
    return {"schema": {"type": kind, "x-expected": expected}}


class Generation(Arguments):
    """How the model generates; what is left out is the provider's choice."""

    # Taken here too, as the Interactions API has it; shown once, beside this object.
    thinking_level: Annotated[ThinkingLevel, Field(json_schema_extra={"x-published": None})] | None = None
    thinking_summaries: Annotated[str, _choice("auto", "none")] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: (
        Annotated[
            int, Field(ge=-(2**31), le=2**31 - 1, json_schema_extra=_plain("integer", "a whole number of 32 bits"))
        ]
        | None
    ) = None
    max_output_tokens: (
        Annotated[int, Field(ge=1, le=10_000_000, json_schema_extra=_plain("integer", "a whole number of at least 1"))]
        | None
    ) = None
    stop_sequences: (
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=MAX_LINE)]],
            Field(
                max_length=16,
                json_schema_extra={
                    "schema": {
                        "type": "array",
                        "items": {"type": "string", "x-expected": f"text of 1 to {MAX_LINE} characters"},
                        "x-expected": "a list of at most 16 texts",
                    }
                },
            ),
        ]
        | None
    ) = None
    tool_choice: Annotated[str, _choice("auto", "any", "none")] | None = None


Thinking = Annotated[ThinkingLevel, Field(description="How much the model thinks first.")]


def generation_config(level: ThinkingLevel | None, given: Generation | None) -> GenerationConfig | None:
    """Return the engine's config of both places a caller may say it in; `None` when neither says anything."""
    values = given.model_dump(exclude_none=True) if given else {}
    if level:
        values["thinking_level"] = level
    return GenerationConfig(**values) if values else None


_FUNCTION_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{0,63}")
_FUNCTION_KEYS = {"type", "name", "description", "parameters"}
_PARAMETER_SPELLINGS = ("inputSchema", "input_schema", "parameters_json_schema")


def _function(value: object) -> Json:
    if not isinstance(value, dict):
        raise refuse("a function {name, description, parameters}", value)
    given = cast("Json", value)
    if isinstance(given.get("function"), dict):
        given = {"type": "function", **given["function"]}
    given = {("parameters" if key in _PARAMETER_SPELLINGS else key): item for key, item in given.items()}
    given.pop("strict", None)
    kind = given.get("type", "function")
    if kind != "function":
        raise wrong(f'expected type "function" (built-in tools are not there yet), got {shown(kind)}')
    if extra := sorted(set(given) - _FUNCTION_KEYS):
        raise wrong(f"expected name, description and parameters, got also {shown(extra[0])}")
    name = given.get("name")
    if not isinstance(name, str) or not _FUNCTION_NAME.fullmatch(name):
        raise refuse("a name of letters, digits, _ and -, at most 64", name)
    description: Any = given.get("description") or ""
    parameters: Any = given.get("parameters") or {"type": "object", "properties": {}}
    if not isinstance(description, str):
        raise refuse(f"a description for {name} as text", description)
    if not isinstance(parameters, dict) or cast("Json", parameters).get("type", "object") != "object":
        raise refuse(f"parameters of {name} as a JSON schema of type object", given["parameters"])
    return {"type": "function", "name": name, "description": description, "parameters": parameters}


def _functions(value: list[Json]) -> list[Json]:
    if len(value) > 128:
        raise wrong(f"expected at most 128 functions, got {len(value):,}")
    names = [function["name"] for function in value]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise wrong(f"expected each name once, got {shown(twice)} twice")
    return value


Functions = Annotated[
    list[Annotated[Json, BeforeValidator(_function)]],
    AfterValidator(_functions),
    Field(
        description="{name, description, parameters: JSON schema}: it may call them; you answer with respond.",
        json_schema_extra={"schema": {"type": "array", "items": {"type": "object"}}},
    ),
]
OtherFunctions = Annotated[
    list[Annotated[Json, BeforeValidator(_function)]],
    AfterValidator(_functions),
    Field(
        description="Instead of the session's, for this turn.",
        json_schema_extra={"schema": {"type": "array", "items": {"type": "object"}}},
    ),
]
