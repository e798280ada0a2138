"""The file tools in a real workspace: what models write is understood, what goes wrong is explained."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from interactd.builtins.arguments import BadArguments, read_arguments
from interactd.builtins.files.places import path_of
from interactd.builtins.port import Outcome, ToolContext
from interactd.builtins.tools import builtin_tools
from interactd.errors import InteractdError, InvalidArgument
from interactd.paths import Paths
from interactd.sandbox.environments.environments import LocalEnvironments
from interactd.sandbox.launchers import all_launchers
from interactd.store.sqlite import SqliteStore

pytestmark = pytest.mark.anyio

TOOLS = builtin_tools(["files", "code_execution"])


class Hands:
    """Calls tools by name, as the loop does."""

    def __init__(self, ctx: ToolContext) -> None:
        self.ctx = ctx

    async def call(self, name: str, **arguments: Any) -> Outcome:
        tool = TOOLS[name]
        try:
            return await tool.call(read_arguments(tool.declaration, arguments), self.ctx)
        except InteractdError as error:
            return Outcome(error.message, is_error=True)

    async def says(self, name: str, **arguments: Any) -> str:
        """The text of a call that must work."""
        got = await self.call(name, **arguments)
        assert not got.is_error, got.result
        return str(got.result)

    async def fails(self, name: str, **arguments: Any) -> str:
        got = await self.call(name, **arguments)
        assert got.is_error, got.result
        return str(got.result)


@pytest.fixture
async def hands(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Hands]:
    paths = Paths(*(str(tmp_path / part) for part in ("config", "data", "state", "logs", "cache", "run"))).make()
    agent = tmp_path / "agent"
    (agent / "skills" / "one").mkdir(parents=True)
    (agent / "skills" / "one" / "SKILL.md").write_text("Do it well.")
    store = SqliteStore(paths.database)
    await store.open()
    environments = LocalEnvironments(paths, store, all_launchers(paths))
    await environments.start()
    try:
        made = await environments.create({})
        async with environments.lease(made.id, "int_test", agent_folder=agent) as workspace:
            yield Hands(ToolContext(workspace, "int_test", "call_1"))
    finally:
        await environments.aclose()
        await store.aclose()


async def test_what_is_written_can_be_viewed_in_parts(hands: Hands) -> None:
    assert "2 lines, 8 bytes" in await hands.says("write_file", path="d/a.txt", content="one\ntwo\n")
    assert await hands.says("view_file", path="/workspace/d/a.txt") == "1\tone\n2\ttwo"
    assert await hands.says("view_file", path="d/a.txt", start_line=2, end_line=2) == "2\ttwo\n[Lines 2-2 of 2.]"
    assert "there is no line 9" in await hands.fails("view_file", path="d/a.txt", start_line=9)


async def test_a_long_file_is_viewed_piece_by_piece(hands: Hands) -> None:
    await hands.says("write_file", path="long", content="".join(f"line {n}\n" for n in range(1, 300_001)))
    first = await hands.says("view_file", path="long")
    assert first.endswith("[Lines 1-400 of 300000. Go on with start_line 401.]")
    far = await hands.says("view_file", path="long", start_line=299_999)
    assert far == "299999\tline 299999\n300000\tline 300000\n[Lines 299999-300000 of 300000.]"
    await hands.says("write_file", path="wide", content="x" * 3_000_000)
    assert len(await hands.says("view_file", path="wide")) < 3_000


async def test_names_from_other_tools_are_understood(hands: Hands) -> None:
    await hands.says("write_file", file_path="a", contents="x = 1\n")
    await hands.says("replace_in_file", file="a", old_str="x = 1", new_str="x = 2")
    assert await hands.says("view_file", filename="a", start_line="1") == "1\tx = 2"


async def test_a_replacement_must_be_exact_and_single(hands: Hands) -> None:
    await hands.says("write_file", path="a", content="def f():\n    return 1\n\ndef g():\n    return 1\n")
    assert "occurs 2 times in a (lines 2, 5)" in await hands.fails(
        "replace_in_file", path="a", old_string="return 1", new_string="return 2"
    )
    white = await hands.fails("replace_in_file", path="a", old_string="def f():\n  return 1", new_string="")
    assert "with other white space are at line 1" in white
    near = await hands.fails("replace_in_file", path="a", old_string="def h():", new_string="")
    assert "The nearest is at line" in near
    await hands.says("replace_in_file", path="a", old_string="return 1", new_string="return 3", replace_all=True)
    assert (await hands.says("view_file", path="a")).count("return 3") == 2
    await hands.says("write_file", path="crlf", content="a\r\nb\r\n")
    await hands.says("replace_in_file", path="crlf", old_string="a\nb", new_string="c\nd")
    assert await hands.ctx.workspace.read("crlf") == b"c\r\nd\r\n"


async def test_folders_are_listed_searched_and_cleaned(hands: Hands) -> None:
    assert "is empty" in await hands.says("list_dir")
    await hands.says("write_file", path="d/a.py", content="needle = 1\n")
    await hands.ctx.workspace.write("bad\nname", b"needle")
    listed = await hands.says("list_dir", recursive=True)
    assert "d/" in listed.split("\n")
    assert "bad\\nname  6 bytes" in listed
    found = await hands.says("search_files", pattern="needle")
    assert "d/a.py:1: needle = 1" in found
    assert await hands.says("search_files", pattern="haystack") == "Nothing matches."
    await hands.fails("search_files", pattern="(")
    assert await hands.says("delete_file", path="d/a.py") == "Deleted d/a.py."
    assert "nothing was deleted" in await hands.fails("delete_file", path="d/a.py")
    await hands.fails("delete_file", path=".")


async def test_skills_are_read_where_the_prompt_says_and_never_written(hands: Hands) -> None:
    assert await hands.says("view_file", path="/agent/skills/one/SKILL.md") == "1\tDo it well."
    assert "SKILL.md" in await hands.says("list_dir", path="/agent/skills", recursive=True)
    await hands.fails("write_file", path="/agent/skills/one/SKILL.md", content="x")
    await hands.fails("delete_file", path="/agent/skills/one/SKILL.md")


async def test_nothing_outside_is_reached(hands: Hands) -> None:
    for path in ("/etc/passwd", "../../../etc/passwd", "/workspace/../etc/passwd", "~/.ssh/id_rsa", "", "a\0b"):
        await hands.fails("view_file", path=path)
    await hands.says("code_execution", language="bash", code="ln -s /etc/passwd link; mkfifo pipe")
    await hands.fails("view_file", path="link")
    await hands.fails("view_file", path="pipe")


async def test_what_cannot_be_read_is_said(hands: Hands) -> None:
    await hands.says("code_execution", language="python", code="open('b', 'wb').write(bytes(range(256)))")
    assert "binary file" in await hands.fails("view_file", path="b")
    await hands.fails("view_file", path="nowhere")
    await hands.fails("view_file", path=".")
    assert await hands.says("list_dir", path="b") == "b  256 bytes"


async def test_code_says_how_it_ended(hands: Hands) -> None:
    assert await hands.says("code_execution", language="python", code="x = 3") == "(no output)"
    assert (await hands.says("code_execution", language="python", code="```python\nx + 1\n```")).strip() == "4"
    assert "[Exit code 3.]" in await hands.fails("code_execution", language="bash", code="echo out; exit 3")
    assert "ZeroDivisionError" in await hands.fails("code_execution", language="python", code="1 / 0")
    await hands.fails("code_execution", language="python", code="   ")
    gone = await hands.fails("code_execution", language="python", code="import os; os._exit(7)")
    assert "7" in gone
    fresh = await hands.call("code_execution", language="python", code="print('here')")
    assert "Python was started anew" in str(fresh.result)


async def test_progress_bars_are_shown_in_their_last_state(hands: Hands) -> None:
    shown = await hands.says(
        "code_execution", language="bash", code=r"for n in 1 2 3; do printf '\r%s%%' $n; done; echo"
    )
    assert shown.strip() == "3%"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "the argument 'path' is missing"),
        ({"path": 3}, "'path' must be string"),
        ({"path": "a", "start_line": "two"}, "'start_line' must be integer"),
        ({"path": "a", "start_line": True}, "'start_line' must be integer"),
        ({"path": "a", "strat_line": 1}, "Did you mean start_line?"),
        ({"path": "a", "file": "b"}, "unknown argument 'file'"),
    ],
)
def test_bad_arguments_are_explained_with_the_right_form(given: dict[str, Any], said: str) -> None:
    with pytest.raises(BadArguments) as caught:
        read_arguments(TOOLS["view_file"].declaration, given)
    assert said in str(caught.value)
    assert 'Call it as view_file({"path": string, "start_line"?: integer, "end_line"?: integer}).' in str(caught.value)


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("a.txt", "a.txt"),
        ("./d//a.txt", "d/a.txt"),
        ("/workspace", "."),
        ("/workspace/a", "a"),
        ("d/../a", "a"),
        ("file:///workspace/a", "a"),
        ("/agent/skills/x", "/agent/skills/x"),
        ("//workspace/a", "a"),
    ],
)
def test_paths_are_understood_as_models_write_them(given: str, path: str) -> None:
    assert path_of(given) == path


@pytest.mark.parametrize("given", ["..", "../x", "d/../../x", "~/x", " "])
def test_paths_that_leave_the_workspace_are_refused(given: str) -> None:
    with pytest.raises(InvalidArgument):
        path_of(given)


def test_the_declarations_are_short_and_the_same_bytes_every_time() -> None:
    one, other = (
        json.dumps([tool.declaration for tool in builtin_tools(groups).values()])
        for groups in (["files", "code_execution"], ["code_execution", "files"])
    )
    assert one == other
    assert len(one) / 4 < 650, "tokens, about"
