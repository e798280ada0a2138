from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interactd.engine.checks.content import check_content
from interactd.errors import InvalidArgument

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n0000").decode()
MB = 1024 * 1024


def check(content: Any, max_bytes: int = 8 * MB) -> list[dict[str, Any]]:
    return check_content(content, max_bytes=max_bytes)


def refused(content: Any, max_bytes: int = 8 * MB) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as caught:
        check(content, max_bytes)
    return caught.value


def test_a_string_is_one_text() -> None:
    assert check("hi") == [{"type": "text", "text": "hi"}]


def test_texts_and_images_are_kept_in_order() -> None:
    image = {"type": "image", "data": PNG, "mime_type": "image/png"}
    link = {"type": "image", "uri": "https://example.org/a.png"}
    assert check(["look", image, {"text": "and"}, link]) == [
        {"type": "text", "text": "look"},
        image,
        {"type": "text", "text": "and"},
        link,
    ]


def test_one_content_object_needs_no_list() -> None:
    assert check({"type": "text", "text": "hi"}) == [{"type": "text", "text": "hi"}]


@pytest.mark.parametrize("empty", ["", "  \n", [], [""], [{"type": "text", "text": " "}]])
def test_empty_input_is_refused(empty: Any) -> None:
    error = refused(empty)
    assert error.fields["field"] == "content"
    assert error.repair


@pytest.mark.parametrize("wrong", [None, 3, True, {"text": 1}, [3], [None], [["x"]], b"bytes"])
def test_what_is_no_content_is_refused(wrong: Any) -> None:
    assert refused(wrong).message.startswith("content")


def test_a_lone_surrogate_is_refused_with_field_and_position() -> None:
    error = refused(["ok", "ab\ud800c"])
    assert error.fields == {"field": "content[1]", "position": 2}
    assert "U+D800" in error.message
    error.message.encode()


def test_nul_is_refused_and_other_control_characters_are_kept() -> None:
    assert refused("a\x00b").fields["position"] == 1
    assert check("a\x01\x1b[31m\r\n\tb\x7f")[0]["text"] == "a\x01\x1b[31m\r\n\tb\x7f"


def test_the_size_limit_counts_utf8_and_all_parts_together() -> None:
    assert check("é" * 50, 100)
    assert refused("é" * 51, 100).fields["limit"] == 100
    assert refused(["x" * 60, "x" * 60], 100).fields["limit"] == 100
    assert refused([{"type": "image", "data": PNG * 10, "mime_type": "image/png"}], 100)


@pytest.mark.parametrize(
    "image",
    [
        {"type": "image"},
        {"type": "image", "data": PNG},
        {"type": "image", "data": PNG, "mime_type": "image/svg+xml"},
        {"type": "image", "data": PNG, "mime_type": 3},
        {"type": "image", "data": PNG, "uri": "https://x/y.png", "mime_type": "image/png"},
        {"type": "image", "data": "not base64!", "mime_type": "image/png"},
        {"type": "image", "data": "abc", "mime_type": "image/png"},
        {"type": "image", "data": "", "mime_type": "image/png"},
        {"type": "image", "data": f"data:image/png;base64,{PNG}", "mime_type": "image/png"},
        {"type": "image", "uri": "file:///etc/passwd"},
        {"type": "image", "uri": "no address"},
        {"type": "image", "data": PNG, "mime_type": "image/png", "mimeType": "image/png"},
        {"type": "audio", "data": PNG, "mime_type": "audio/wav"},
    ],
)
def test_an_image_that_no_model_could_read_is_refused(image: dict[str, Any]) -> None:
    assert refused(["look", image]).fields["field"].startswith("content[1]")


def test_line_breaks_in_base64_are_taken_out() -> None:
    broken = f"{PNG[:8]}\n{PNG[8:]}\n"
    assert check([{"type": "image", "data": broken, "mime_type": "image/png"}])[0]["data"] == PNG


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_whatever_comes_in_is_either_stored_or_refused_by_name(content: Any) -> None:
    error: InvalidArgument | None = None
    parts: list[dict[str, Any]] = []
    try:
        parts = check(content)
    except InvalidArgument as caught:
        error = caught
    if error is not None:
        assert error.fields["field"].startswith("content")
        error.message.encode()
    else:
        assert parts
        assert all("\x00" not in part.get("text", "") for part in parts)
        "".join(part.get("text", "") for part in parts).encode()
