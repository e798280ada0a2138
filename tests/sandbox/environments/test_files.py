"""File operations from outside on a workspace whose owner is hostile."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from interactd.errors import InteractdError, InvalidArgument, NotFound
from interactd.sandbox.folder.names import meant, shown
from sandbox.environments.kit import World

pytestmark = pytest.mark.anyio


async def test_a_file_is_written_whole_read_in_parts_and_deleted(w: World) -> None:
    environment = await w.environments.create({})
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        await space.write("a/b/c.txt", b"0123456789")
        assert await space.read("/workspace/a/b/c.txt", offset=3, limit=4) == b"3456"
        assert await space.read("a/./x/../b/c.txt") == b"0123456789"
        await space.write("a/b/c.txt", b"new")
        seen = await space.run_bash("cat a/b/c.txt; echo more >> a/b/c.txt; ls -A a/b; rm a/b/c.txt && rmdir a/b a")
        assert (seen.output, seen.exit.code) == ("newc.txt\n", 0), "the agent may do with it what it likes"
        with pytest.raises(NotFound):
            await space.read("a/b/c.txt")
        await space.run_bash("printf '#!/bin/sh\\n' > run.sh; chmod 755 run.sh")
        await space.write("run.sh", b"#!/bin/sh\necho still runs\n")
        assert (await space.run_bash("./run.sh")).output == "still runs\n"


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "/etc/passwd",
        "a/../../x",
        "/workspace/../etc",
        "/workspacex/a",
        "",
        "  ",
        "a\0b",
        "x" * 300,
        "/",
        "a/" * 3000,
    ],
)
async def test_no_path_leaves_the_workspace(w: World, path: str) -> None:
    environment = await w.environments.create({})
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        for call in (space.read(path), space.write(path, b"x"), space.delete(path)):
            with pytest.raises((InvalidArgument, NotFound)):
                await call
    assert list(w.folder(environment.id).iterdir()) == []


async def test_links_are_never_followed(w: World, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("host secret")
    environment = await w.environments.create({})
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        await space.run_bash(
            f"ln -s {secret}/key file; ln -s {secret} folder; ln -s /proc/self/root magic; ln -s . here; echo x > real"
        )
        for path in ("file", "folder/key", f"magic{secret}/key", "here/real"):
            with pytest.raises((InvalidArgument, NotFound)):
                await space.read(path)
        for path in ("file", "folder/key", "folder/new"):
            with pytest.raises((InvalidArgument, NotFound)):
                await space.write(path, b"overwritten")
        with pytest.raises((InvalidArgument, NotFound)):
            await space.list("folder")
        assert {entry["path"]: entry["type"] for entry in await space.list(recursive=True)} == {
            "file": "link",
            "folder": "link",
            "here": "link",
            "magic": "link",
            "real": "file",
        }
        await space.delete("folder")
    assert (secret / "key").read_text() == "host secret"
    assert sorted(p.name for p in secret.iterdir()) == ["key"]


async def test_what_is_no_plain_file_is_refused_at_once(w: World) -> None:
    environment = await w.environments.create({})
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        await space.run_bash(
            "mkfifo fifo; mkdir dir; echo 1 > one; ln one two;"
            " python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")'"
        )
        began = time.monotonic()
        for path in ("fifo", "dir", "sock", "one", "two"):
            with pytest.raises(InvalidArgument) as caught:
                await space.read(path)
            assert caught.value.repair
        for path in ("fifo", "dir", "sock"):
            with pytest.raises(InvalidArgument):
                await space.write(path, b"x")
        assert time.monotonic() - began < 5
        await space.delete("fifo")
        await space.delete("dir")
        left = [entry["path"] for entry in await space.list()]
    assert left == ["one", "sock", "two"]


async def test_a_folder_that_is_deeper_than_any_path_can_be_deleted(w: World) -> None:
    environment = await w.environments.create({})
    deep = "import os\nfor n in range(3000):\n    os.mkdir('d' * 20); os.chdir('d' * 20)\nopen('x', 'w').write('x')"
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        made = await space.run_python("import os; os.mkdir('top'); os.chdir('top')\n" + deep)
        assert made.exit.code == 0, made.output
        assert len(await space.list(recursive=True)) > 100
        await space.delete("top")
        assert await space.list() == []
        await space.run_python("os.chdir('/workspace')\n" + deep)
        await space.capture(await w.interaction())
        assert any("deep" in entry["reason"] for entry in space.left_out)
    # A new sandbox over it, and the end of it, must work as well.
    await w.restart()
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        assert (await space.run_bash("echo on")).output == "on\n"
    await w.environments.delete(environment.id)
    assert not w.folder(environment.id).parent.exists()


async def test_what_was_made_unreadable_can_still_be_removed(w: World) -> None:
    environment = await w.environments.create({})
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        await space.run_bash("mkdir -p a/b; echo x > a/b/f; chmod 000 a/b/f a/b a")
    await w.environments.delete(environment.id)
    assert not w.folder(environment.id).parent.exists()


@pytest.mark.parametrize(
    "name",
    [b"a\nb", b"\xff\xfe", "é".encode(), b"..x", b"a\\nb", b"\x1b[31mred", "\u202etxt.exe".encode(), b"a b", b"\x85"],
)
def test_a_shown_name_is_printable_and_means_that_file_again(name: bytes) -> None:
    text = shown(name)
    assert text.isprintable()
    assert meant(text) == name


def test_no_two_names_are_shown_alike() -> None:
    names = [
        b"a\nb",
        b"a\\nb",
        b"a\\\nb",
        b"\xc2\x85",
        b"\x85",
        b"\\x85",
        "\ufffd".encode(),
        b"\xff",
        b"\\xff",
        b"\\u0085",
    ]
    assert len({shown(name) for name in names}) == len(names)


async def test_odd_names_are_listed_in_print_and_can_be_read_by_what_was_listed(w: World) -> None:
    environment = await w.environments.create({})
    make = "import os\nfor n in (b'new\\nline', b'\\xff\\xfe', b'back\\\\slash', b'...'): open(n, 'wb').write(n)"
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        await space.run_python(make)
        names = [entry["path"] for entry in await space.list()]
        assert names == ["...", "back\\\\slash", "new\\nline", "\\xff\\xfe"]
        assert [await space.read(name) for name in names] == [b"...", b"back\\slash", b"new\nline", b"\xff\xfe"]
        await space.delete("new\\nline")
        assert len(await space.list()) == 3


async def test_search_finds_lines_and_a_pattern_that_explodes_is_bounded(
    w: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interactd.sandbox.environments.workspace.SEARCH_S", 1.0)
    environment = await w.environments.create({})
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        await space.write("src/a.py", b"import os\nx = 1\n")
        await space.write("b.bin", b"\0import os")
        await space.write("evil.txt", b"a" * 5000 + b"b")
        await space.run_bash("ln -s /etc/passwd link; mkfifo fifo")
        assert await space.search(r"^import (\w+)") == [{"path": "src/a.py", "line": 1, "text": "import os"}]
        assert await space.search("x = 1", "src/a.py") == [{"path": "src/a.py", "line": 2, "text": "x = 1"}]
        assert await space.search("root") == []
        with pytest.raises(InvalidArgument, match="pattern"):
            await space.search("(unclosed")
        with pytest.raises(NotFound):
            await space.search("x", "nowhere")
        began = time.monotonic()
        with pytest.raises(InvalidArgument, match="longer"):
            await space.search("(a+)+$")
        assert time.monotonic() - began < 10


async def test_a_full_workspace_takes_no_more_and_says_what_to_do(w: World) -> None:
    environment = await w.environments.create({"limits": {"disk_mb": 2, "file_mb": 1}})
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        with pytest.raises(InvalidArgument, match="1 MB"):
            await space.write("large", b"x" * 1_100_000)
        await space.write("one", b"x" * 1_000_000)
        await space.write("two", b"x" * 1_000_000)
        with pytest.raises(InvalidArgument, match="full") as caught:
            await space.write("three", b"x" * 1_000_000)
        assert "Delete" in (caught.value.repair or "")
        filled = await space.run_bash("dd if=/dev/zero of=big bs=1M count=50", wall_s=30)
        assert filled.exit.code != 0
        deleted = await space.run_bash("rm -f one two big; echo ok")
        assert deleted.output.endswith("ok\n")
        await space.write("three", b"x" * 1000)


async def test_a_workspace_given_back_does_nothing_more(w: World) -> None:
    environment = await w.environments.create({})
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        await space.write("a", b"1")
    for call in (space.read("a"), space.run_python("1"), space.write("b", b""), space.run_bash("true")):
        with pytest.raises(InteractdError):
            await call
    assert not (w.folder(environment.id) / "b").exists()


@pytest.mark.parametrize("folders", [12, pytest.param(100, marks=pytest.mark.long)])
async def test_a_hundred_thousand_files_are_listed_captured_and_removed_in_bounds(w: World, folders: int) -> None:
    environment = await w.environments.create({"limits": {"disk_mb": 8192}})
    make = (
        f"import os\nfor d in range({folders}):\n    os.mkdir(f'd{{d}}')\n    for f in range(1000):\n"
        "        os.close(os.open(f'd{d}/f{f}', os.O_CREAT | os.O_WRONLY))"
    )
    interaction = await w.interaction()
    async with w.environments.lease(environment.id, interaction) as space:
        made = await space.run_python(make, wall_s=100)
        assert made.exit.code == 0, made.output
        began = time.monotonic()
        assert len(await space.list(recursive=True, limit=200_000)) == min(folders * 1001, 100_000)
        assert len(await space.list(limit=50)) == min(50, folders)
        kept = await space.capture(interaction)
        assert len(kept) == 10_000
        assert [entry["count"] for entry in space.left_out] == [(folders - 10) * 1000]
        assert len(space.left_out[0]["names"]) <= 50
        assert time.monotonic() - began < 60
    began = time.monotonic()
    await w.environments.delete(environment.id)
    assert time.monotonic() - began < 30
    assert not w.folder(environment.id).parent.exists()
