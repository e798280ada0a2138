"""Counts tokens as a real model does: byte-level BPE with the vocabulary that stands in a GGUF file of weights."""

from __future__ import annotations

import re
import struct
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MERGES = "tokenizer.ggml.merges"
_WORDS = re.compile(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\w]?[^\W\d_]+|\d| ?(?:[^\s\w]|_)+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@cache
def _merges(weights: Path) -> dict[tuple[str, str], int]:
    with weights.open("rb") as file:
        assert file.read(4) == b"GGUF"
        _, _, pairs = struct.unpack("<IQQ", file.read(20))
        for _ in range(pairs):
            name = _value(file, _STRING).decode()
            value = _value(file, struct.unpack("<I", file.read(4))[0])
            if name == _MERGES:
                return {(one, other): rank for rank, (one, other) in enumerate(m.decode().split(" ") for m in value)}
    raise AssertionError(f"{weights} has no merges")


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return file.read(struct.unpack("<Q", file.read(8))[0])
    if kind == _ARRAY:
        inner, count = struct.unpack("<IQ", file.read(12))
        return [_value(file, inner) for _ in range(count)]
    form = "<" + _NUMBERS[kind]
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]


def _letters() -> dict[int, str]:
    """GPT-2's printable stand-ins for bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {**{byte: chr(byte) for byte in plain}, **{byte: chr(256 + at) for at, byte in enumerate(rest)}}


def count(text: str, weights: Path) -> int:
    """Return how many tokens the text is to the model of these weights."""
    merges, letters = _merges(weights), _letters()
    total = 0
    for word in _WORDS.findall(text):
        parts = [letters[byte] for byte in word.encode()]
        while len(parts) > 1:
            at = min(range(len(parts) - 1), key=lambda i: merges.get((parts[i], parts[i + 1]), 1 << 30))
            if (parts[at], parts[at + 1]) not in merges:
                break
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        total += len(parts)
    return total
