"""From bytes to JSON-RPC messages, and the refusals of what is none.

The fast path is one call into pydantic. Only what that refuses is looked at again, to say what is wrong under the id
it belongs to: a request that is dropped without an answer leaves its client waiting for ever.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, cast

from mcp_types import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError

MAX_MESSAGE = 32 * 1024 * 1024
MAX_BATCH = 1000
_SURROGATE = re.compile("[\ud800-\udfff]")
_EARLY_ID = re.compile(rb'^\s*\{(?:(?!"params")[\s\S])*?"id"\s*:\s*(-?\d{1,18}|"[^"\\]{1,200}")')


@dataclass(slots=True)
class Frame:
    """What one line or body held.

    `refusals` are to be sent back; one with an id of `None` could not be matched to a request. `batch` is set when
    the messages came in one JSON array.
    """

    messages: list[JSONRPCMessage] = field(default_factory=list[JSONRPCMessage])
    refusals: list[JSONRPCError] = field(default_factory=list[JSONRPCError])
    batch: bool = False


def parse(data: bytes) -> Frame:
    """Read one message or batch. Never raises; blank input is an empty frame."""
    data = data.removeprefix(b"\xef\xbb\xbf").strip()
    if not data:
        return Frame()
    if data[:1] == b"{":
        try:
            message = jsonrpc_message_adapter.validate_json(data, by_name=False)
        except ValidationError:
            return _explain(data)
        # A request whose id is null would pass for a notification, and its sender would wait for an answer.
        if not (isinstance(message, JSONRPCNotification) and b'"id"' in data):
            return Frame([message])
    return _explain(data)


def overlong(head: bytes) -> Frame:
    """The refusal of a message that was too long to read, under its id where the head shows one."""
    found = _EARLY_ID.match(head)
    number: RequestId | None = json.loads(found[1]) if found else None
    problem = f"the message is larger than {MAX_MESSAGE // (1024 * 1024)} MiB; send large inputs by reference"
    return Frame(refusals=[refusal(number, INVALID_REQUEST, problem)])


def refusal(number: RequestId | None, code: int, message: str, data: Any = None) -> JSONRPCError:
    """Return a JSON-RPC error for the request `number`."""
    error = ErrorData(code=code, message=message) if data is None else ErrorData(code=code, message=message, data=data)
    return JSONRPCError(jsonrpc="2.0", id=number, error=error)


def _explain(data: bytes) -> Frame:
    try:
        value: Any = json.loads(data)
    except UnicodeDecodeError as error:
        return _broken(f"not UTF-8 at byte {error.start}")
    except RecursionError:
        return _broken("nested too deeply")
    except ValueError as error:
        return _broken(str(error))
    if not isinstance(value, list):
        return _one(value)
    items = cast(list[Any], value)
    if not items or len(items) > MAX_BATCH:
        problem = f"a batch holds 1 to {MAX_BATCH} messages, this one {len(items)}"
        return Frame(refusals=[refusal(None, INVALID_REQUEST, problem)])
    whole = Frame(batch=True)
    seen: set[RequestId] = set()
    for item in items:
        frame = _one(item)
        for message in frame.messages:
            if isinstance(message, JSONRPCRequest):
                if message.method == "initialize":
                    whole.refusals.append(refusal(message.id, INVALID_REQUEST, "initialize must not be in a batch"))
                    continue
                if message.id in seen:
                    whole.refusals.append(refusal(message.id, INVALID_REQUEST, "the same id twice in one batch"))
                    continue
                seen.add(message.id)
            whole.messages.append(message)
        whole.refusals.extend(frame.refusals)
    return whole


def _broken(problem: str) -> Frame:
    text = f"Parse error: {problem}. Send one JSON-RPC message a line, in UTF-8."
    return Frame(refusals=[refusal(None, PARSE_ERROR, text)])


def _one(value: Any) -> Frame:
    if not isinstance(value, dict):
        return _invalid(None, f"a message is a JSON object, not {_kind(value)}")
    message = cast(dict[str, Any], value)
    number = message.get("id")
    known: RequestId | None = number if isinstance(number, (str, int)) and not isinstance(number, bool) else None
    if isinstance(known, str) and _SURROGATE.search(known):
        known = None
    if message.get("jsonrpc") != "2.0":
        return _invalid(known, 'every message carries "jsonrpc": "2.0"')
    if "method" in message:
        if "id" in message and known is None:
            return _invalid(None, f"id must be a string or an integer, not {_kind(number)}")
        if not isinstance(message["method"], str):
            return _invalid(known, f"method must be a string, not {_kind(message['method'])}")
        if not isinstance(message.get("params", {}), (dict, type(None))):
            return _invalid(known, f"params must be an object, not {_kind(message['params'])}", INVALID_PARAMS)
    else:
        # Under its id our error would look like the answer to another request of the same number.
        known = None
        if not ({"result", "error"} & message.keys()):
            return _invalid(known, "a message has a method, a result or an error")
    where = surrogate_in(message)
    if where is not None:
        return _invalid(known, f"{where} holds half of a character (a lone surrogate); send whole ones", INVALID_PARAMS)
    try:
        return Frame([jsonrpc_message_adapter.validate_json(json.dumps(message), by_name=False)])
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        too_deep = "recursion" in first["msg"]
        return _invalid(known, "nested too deeply" if too_deep else f"not a JSON-RPC message: {first['msg']}")


def _invalid(number: RequestId | None, problem: str, code: int = INVALID_REQUEST) -> Frame:
    return Frame(refusals=[refusal(number, code, f"Invalid request: {problem}.")])


def surrogate_in(value: Any, path: str = "") -> str | None:
    """Return where in a decoded message a lone surrogate stands (`params.arguments.text`), or `None`."""
    stack: list[tuple[str, Any]] = [(path, value)]
    while stack:
        where, item = stack.pop()
        if isinstance(item, str):
            if _SURROGATE.search(item):
                return where or "the message"
        elif isinstance(item, dict):
            for key, inner in cast(dict[str, Any], item).items():
                if _SURROGATE.search(key):
                    return f"a key of {where or 'the message'}"
                stack.append((f"{where}.{key}" if where else key, inner))
        elif isinstance(item, list):
            stack.extend((f"{where}[{i}]", inner) for i, inner in enumerate(cast(list[Any], item)))
    return None


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names = ((bool, "a boolean"), (str, "a string"), (dict, "an object"), (list, "an array"))
    return next((name for kind, name in names if isinstance(value, kind)), "a number")


def encode(message: JSONRPCMessage) -> bytes:
    """Return the message as one line of UTF-8 without its end."""
    try:
        return message.model_dump_json(by_alias=True, exclude_unset=True).encode()
    except (ValueError, UnicodeError):
        # A model's text can end in half of a character; that must cost a character, not the answer.
        plain = message.model_dump(by_alias=True, exclude_unset=True)
        return _SURROGATE.sub("\ufffd", json.dumps(plain, ensure_ascii=False, separators=(",", ":"))).encode()


def is_answer(message: JSONRPCMessage) -> bool:
    """Whether the message answers a request."""
    return isinstance(message, (JSONRPCResponse, JSONRPCError))
