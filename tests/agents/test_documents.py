"""YAML and JSON that nobody meant to write: faults, never another error, never for long."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interactd import paths
from interactd.agents import AgentFolders
from interactd.agents.documents import Document, json_text, text, yaml_text
from interactd.errors import BadManifest
from support.agent_folders import write

WORDS = """: - [ ] { } , & * ! | > ' " % @ ` # ? ~ <<: --- ... !!str &a *a \\ \\u0000 \\ud800 \\U00110000 1e999 0x .nan
id: tools: environment: sources: limits: steps: description: requires: true null 99999999999999999999999"""
BREAKS = ["\n", "\n  ", "\n- ", "\n    ", " ", "\t", "é", "\u2028", "\x85", "\ufeff", "\U0001f600"]
PIECES = st.sampled_from([*WORDS.split(), *BREAKS])
YAML_LIKE = st.lists(PIECES, max_size=40).map("".join)
JSON_VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(blacklist_categories=("Cs", "Cc", "Cn")), max_size=20),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(st.characters(categories=("L", "N")), min_size=1, max_size=8), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(YAML_LIKE | st.text(max_size=200))
@settings(max_examples=500, deadline=None)
def test_any_text_is_a_document_or_has_faults(written: str) -> None:
    plain, faults = text.decode(written.encode("utf-8", "surrogatepass"))
    for read in (yaml_text.read, json_text.read):
        document = read(plain)
        assert all(fault.line is None or fault.line >= 1 for fault in document.faults)
        assert all(fault.message.isprintable() for fault in [*document.faults, *faults])


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> tuple[AgentFolders, Path]:
    found = paths.find({"INTERACTD_HOME": str(tmp_path_factory.mktemp("machine"))})
    return AgentFolders(found), write(found.config / "agents" / "garbled")


@given(st.binary(max_size=120) | YAML_LIKE.map(lambda part: b"id: garbled\ndescription: x\n" + part.encode()))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_garbage_in_a_manifest_is_a_bad_manifest_and_nothing_else(
    machine: tuple[AgentFolders, Path], data: bytes
) -> None:
    folders, folder = machine
    (folder / "agent.yaml").write_bytes(data)
    error: BadManifest | None = None
    try:
        folders.resolve_now("garbled")
    except BadManifest as told:
        error = told
    if error is not None:
        assert error.message.isprintable()
        assert json.loads(json.dumps(error.as_dict()))["code"] == "bad_manifest"


@given(JSON_VALUES)
@settings(max_examples=200, deadline=None)
def test_json_is_read_as_python_reads_it(value: Any) -> None:
    document = json_text.read(json.dumps(value, indent=2))
    assert (document.value, document.faults) == (value, [])


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("a: 1", 1),
        ("a: 0o17", 15),
        ("a: 0x1F", 31),
        ("a: 1_000", "1_000"),
        ("a: 1.5e3", 1500.0),
        ("a: ~", None),
        ("a:", None),
        ("a: on", "on"),
        ("a: 2026-09-01", "2026-09-01"),
        ("a: '1'", "1"),
        ("a: |\n  1\n", "1\n"),
        ("a: {b: [1, 'x']}", {"b": [1, "x"]}),
        ("true: 1\na: 2", 2),
    ],
)
def test_yaml_means_what_version_1_2_says(written: str, value: object) -> None:
    document = yaml_text.read(written)
    assert document.faults == []
    assert document.value["a"] == value
    assert type(document.value["a"]) is type(value)
    assert all(isinstance(key, str) for key in document.value)


def test_a_number_that_is_none_is_still_a_number() -> None:
    assert math.isnan(yaml_text.read(".nan").value)


@pytest.mark.parametrize(
    "written",
    [
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
        "[" * 30_000,
        "{a: " * 10_000,
        "- " * 30_000,
        "a:\n" + "".join(" " * n + "a:\n" for n in range(1, 300)),
        "x, " * 20_000,
        "[" + "1, " * 20_001 + "]",
        "'" * 60_000,
        '"' + "\\x41" * 15_000,
        "# " * 30_000,
        "%TAG ! tag:x,2000:\n---\n!a b",
        "? " * 30_000,
    ],
    ids=[
        "bomb",
        "brackets",
        "braces",
        "dashes",
        "steps",
        "commas",
        "many",
        "quotes",
        "escapes",
        "comment",
        "tag",
        "marks",
    ],
)
def test_a_hostile_text_takes_no_time(written: str) -> None:
    started = time.perf_counter()
    for read in (yaml_text.read, json_text.read):
        document: Document = read(written)
        assert document.faults or document.value is None or len(str(document.value)) <= len(written) * 2
    assert time.perf_counter() - started < 10


def test_a_fault_in_json_has_its_line() -> None:
    document = json_text.read('{\n "a": 1,\n "b": [1,\n  x]\n}')
    assert [(fault.line, fault.message) for fault in document.faults] == [(4, "expected a value, got 'x]'")]
