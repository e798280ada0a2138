"""Server-sent events: what is read does not depend on where the bytes were cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interactd.errors import StreamMalformed
from interactd.models.http.payload import sniff
from interactd.models.http.sse import ServerSent, SseReader

LINES = st.sampled_from(
    [
        "data: a",
        "data:b",
        "data",
        "data: ü🌍\u2028\x0b\x85",
        "event: x",
        "event:",
        ": note",
        "id: 1",
        "",
        "",
        "retry: 5",
        "junk",
    ]
)


def read(chunks: list[bytes]) -> list[ServerSent]:
    reader = SseReader()
    out = [event for chunk in chunks for event in reader.feed(chunk)]
    last = reader.end()
    return out + ([last] if last else [])


@given(st.lists(LINES), st.sampled_from(["\n", "\r\n", "\r"]), st.lists(st.integers(0, 200)))
def test_any_cut_reads_the_same(lines: list[str], ending: str, cuts: list[int]) -> None:
    body = "".join(line + ending for line in lines).encode()
    places = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    chunks = [body[a:b] for a, b in pairwise(places)]
    assert read(chunks) == read([body]) == read([bytes([byte]) for byte in body])


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_the_fields_mean_what_the_standard_says(ending: str) -> None:
    body = "\ufeff: hi||event: e|data: 1|data: 2||data|data||event: only||data:  two spaces|id: 7||data: last".replace(
        "|", ending
    )
    assert read([body.encode()]) == [
        ServerSent("e", "1\n2"),
        ServerSent(None, "\n"),
        ServerSent(None, " two spaces"),
        ServerSent(None, "last"),
    ]


def test_an_event_without_end_is_refused() -> None:
    reader = SseReader(max_event_bytes=1000)
    for _ in range(9):
        assert reader.feed(b"data: " + b"x" * 100) == []
    with pytest.raises(StreamMalformed):
        reader.feed(b"x" * 200)


@pytest.mark.parametrize(
    ("start", "form"),
    [
        (b"", None),
        (b" \r\n", None),
        (b"data:", "sse"),
        (b": x", "sse"),
        (b'\n{"a"', "json"),
        (b"[{", "json"),
        (b"<h", "html"),
    ],
)
def test_the_first_bytes_tell_what_it_is(start: bytes, form: str | None) -> None:
    assert sniff(start) == form
