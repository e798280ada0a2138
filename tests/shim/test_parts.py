"""The shim's parts one by one: framing, ids, versions, the daemon's environment."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interactd import paths as where
from interactd.shim import record, spawn
from interactd.shim.lines import Lines, peek
from interactd.shim.memory import Memory

IDS = st.one_of(st.integers(-(10**17), 10**17), st.text(max_size=20))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.binary(max_size=400), st.lists(st.integers(0, 400)))
def test_lines_come_out_as_they_went_in_however_they_are_cut(data: bytes, cuts: list[int]) -> None:
    cutter = Lines(spill=True)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    chunks = [data[a:b] for a, b in itertools.pairwise(edges)]
    found = [line for chunk in chunks for line, _ in cutter.feed(chunk)]
    assert b"".join(found) + cutter.rest() == data
    assert all(line.count(b"\n") == 1 and line.endswith(b"\n") for line in found)


@pytest.mark.parametrize("spill", [True, False])
def test_a_line_beyond_the_limit_never_takes_more_memory_than_that(spill: bool) -> None:
    cutter = Lines(spill=spill, limit=1000)
    out = [piece for _ in range(50) for piece in cutter.feed(b"a" * 100)]
    assert cutter.broken == spill
    out += cutter.feed(b"end\nnext\n")
    assert out[-1] == (b"next\n", True)
    assert not cutter.broken
    passed = b"".join(piece for piece, whole in out if not whole)
    assert passed == (b"a" * 5000 + b"end\n" if spill else b"a" * 1100)


@given(IDS, st.sampled_from(["method", "result", "error"]), VALUES, st.randoms(use_true_random=False), st.booleans())
def test_peek_never_says_anything_but_the_truth(
    key: int | str, kind: str, body: Any, shuffle: random.Random, ascii_only: bool
) -> None:
    fields: list[tuple[str, Any]] = [("jsonrpc", "2.0"), ("id", key)]
    fields += [("method", "tools/call"), ("params", {"x": body})] if kind == "method" else [(kind, {"x": body})]
    shuffle.shuffle(fields)
    line = json.dumps(dict(fields), ensure_ascii=ascii_only).encode("utf-8", "surrogatepass") + b"\n"
    found, id_, method = peek(line)
    if found != "other":
        assert (found, id_) == ("request" if kind == "method" else kind, key)
        assert method == ("tools/call" if kind == "method" else "")


@pytest.mark.parametrize(
    "line",
    [
        b'{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"text":"%s"}}\n' % (b"x" * 100_000),
        b'{"method":"tools/call","params":{"text":"%s"},"jsonrpc":"2.0","id":3}\n' % (b"x" * 100_000),
    ],
)
def test_peek_reads_large_messages_of_both_sdks_without_parsing_them(line: bytes) -> None:
    assert peek(line) == ("request", 3, "tools/call")


def test_an_id_inside_the_parameters_is_not_taken_for_the_messages() -> None:
    inner = b'{"method":"x","params":{"message":{"a":1,"jsonrpc":"2.0","id":9}}}\n'
    assert peek(inner)[0] == "other"


def test_requests_are_remembered_until_they_are_answered_whatever_their_ids_look_like() -> None:
    memory = Memory()
    memory.next_generation()
    for key in ("1", '"1"', '"\\u00e4"', "2.0"):
        memory.from_host(b'{"jsonrpc":"2.0","id":%s,"method":"ping"}\n' % key.encode())
    assert [request.id for request in memory.unanswered()] == [1, "1", "ä", 2]
    memory.from_daemon('{"jsonrpc":"2.0","id":"ä","result":{}}\n'.encode())
    memory.from_daemon(b'{"id":2,"result":{},"jsonrpc":"2.0"}\n')
    memory.from_daemon(b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""}}\n')
    assert [request.id for request in memory.unanswered()] == ["1"]


def test_what_is_too_large_to_keep_is_known_and_not_kept() -> None:
    memory = Memory()
    for key in range(40):
        memory.from_host(b'{"jsonrpc":"2.0","id":%d,"method":"x","params":"%s"}\n' % (key, b"y" * 2_000_000))
    kept = [request for request in memory.unanswered() if request.line is not None]
    assert len(memory.unanswered()) == 40
    assert sum(request.size for request in kept) <= 32 * 1024 * 1024


def test_a_refused_initialize_is_not_repeated() -> None:
    memory = Memory()
    memory.from_host(b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}\n')
    memory.from_daemon(b'{"jsonrpc":"2.0","id":1,"error":{"code":-32022,"message":"no"}}\n')
    assert memory.handshake() == (None, "")
    assert memory.setup() == []


def test_versions_are_ordered_as_people_mean_them() -> None:
    ordered = ["0.1.dev1", "0.1.0a1", "0.1.0b2", "0.1.0rc1", "0.1.0", "0.1.0.post1", "0.1.1", "0.2", "0.10.0", "1.0.0"]
    mixed = ordered[::2] + ordered[1::2]
    assert sorted(mixed, key=record.version_key) == ordered
    assert record.version_key("0.1") == record.version_key("0.1.0+local")
    assert record.version_key("") < record.version_key("0.0.1")


def test_the_daemons_environment_has_no_keys_and_no_stray_python_path(tmp_path: Path) -> None:
    given_env = {
        "PATH": "/bin",
        "HOME": "/home/me",
        "LC_ALL": "C.UTF-8",
        "INTERACTD_HOME": "relative/home",
        "HTTPS_PROXY": "http://proxy:1",
        "OPENAI_API_KEY": "sk-secret",
        "AWS_SECRET_ACCESS_KEY": "x",
        "CLAUDE_CODE_SESSION_ID": "x",
        "PYTHONPATH": str(tmp_path),
        "PYTHONSTARTUP": "/evil.py",
        "LD_PRELOAD": "/evil.so",
    }
    found = spawn.environment(given_env)
    assert set(found) == {"PATH", "HOME", "LC_ALL", "INTERACTD_HOME", "HTTPS_PROXY"}
    assert Path(found["INTERACTD_HOME"]).is_absolute()
    root = str(Path(spawn.__file__).parent.parent.parent)
    assert spawn.environment({"PYTHONPATH": f"{tmp_path}:{root}"}) == {"PYTHONPATH": root}


def test_a_record_that_is_not_what_it_should_be_is_no_record(tmp_path: Path) -> None:
    paths = where.find({"INTERACTD_HOME": str(tmp_path)}).make()
    for text in ("", "{", "[]", '{"newest": 3}', '{"newest": {"version": 1, "command": []}}', "\x00"):
        paths.record.write_text(text)
        assert record.newest(paths, "0.1.0", ["me"]) == ("0.1.0", ["me"])
    paths.record.write_text('{"newest": {"version": "9.0", "command": ["/no/such/interpreter"]}}')
    assert record.newest(paths, "0.1.0", ["me"]) == ("0.1.0", ["me"])
