"""Cutting a byte stream into lines."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interactd.faces.lines import CHUNK, LineReader, Overlong

pytestmark = pytest.mark.anyio


async def cut(pieces: list[bytes], cap: int = CHUNK * 4) -> list[bytes | str]:
    reader = asyncio.StreamReader(limit=16)
    lines = LineReader(reader, cap)
    for piece in pieces:
        reader.feed_data(piece)
    reader.feed_eof()
    found: list[bytes | str] = []
    while True:
        try:
            line = await lines.next()
        except Overlong as error:
            found.append(f"overlong {error.head[:4].decode()}")
            continue
        if line is None:
            return found
        found.append(line)


@given(
    st.lists(st.binary(max_size=30).filter(lambda b: b"\n" not in b and not b.endswith(b"\r")), max_size=8), st.data()
)
def test_every_way_to_cut_gives_the_same_lines(lines: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(line + b"\n" for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert asyncio.run(cut(pieces)) == lines


async def test_ends_of_lines_may_be_cr_lf_and_the_last_may_be_missing() -> None:
    assert await cut([b"a\r\nb\n\nlast"]) == [b"a", b"b", b"", b"last"]


async def test_a_line_beyond_the_cap_is_skipped_whole() -> None:
    big = b"long" + b"x" * (CHUNK * 2)
    assert await cut([b"one\n", big, big, b"\ntwo\n", b"three"], cap=CHUNK) == [
        b"one",
        "overlong long",
        b"two",
        b"three",
    ]


async def test_a_line_beyond_the_cap_at_the_end_is_told_too() -> None:
    assert await cut([b"long" + b"x" * (CHUNK * 2)], cap=CHUNK) == ["overlong long"]
