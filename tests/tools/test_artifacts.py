"""What agents left, over the tools: listed, read in pieces, shown as images, packed; whatever the files are called."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from interactd_tools.answers.images import MAX_BYTES, viewable
from interactd_tools.answers.text import tokens
from tools.conftest import AgentWorld, World, fields

pytestmark = pytest.mark.anyio


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int = 2, height: int = 2) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    rows = zlib.compress((b"\0" + b"\xff\0\0" * min(width, 4)) * min(height, 4))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


GIF = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
JPEG = (
    base64.b64decode(
        "/9j/4AAQSkZJRgABAQEASABIAAD/2wBDAP//////////////////////////////////////////////////////////////////////////////////////"
        "wgALCAABAAEBAREA/8QAFBABAAAAAAAAAAAAAAAAAAAAAP/aAAgBAQABPxA="
    )
    + b"\xff\xd9"
)
WEBP = base64.b64decode("UklGRiQAAABXRUJQVlA4IBgAAAAwAQCdASoBAAEAAwA0JaQAA3AA/vuUAAA=")


def writes(files: dict[str, bytes]) -> str:
    """Code that writes these files in the sandbox."""
    packed = {name: base64.b64encode(data).decode() for name, data in files.items()}
    return (
        "import base64, os\n"
        f"for name, data in {packed!r}.items():\n"
        "    os.makedirs(os.path.dirname(name) or '.', exist_ok=True)\n"
        "    open(name, 'wb').write(base64.b64decode(data))\n"
    )


async def left(agents: AgentWorld, files: dict[str, bytes]) -> str:
    return (await agents.run(writes(files)))["interaction_id"]


async def test_files_are_listed_with_type_size_and_digest_and_the_next_calls(agents: AgentWorld) -> None:
    files = {"out/a.csv": b"x\n1\n", "b.md": b"# B", "plot.png": png()}
    one = await left(agents, files)
    listed = await agents.ok("fetch_artifacts", interaction_id=one)
    assert listed.text.startswith(f"3 files · {sum(map(len, files.values()))} bytes · interaction {one}")
    for name, kind in (("out/a.csv", "text/csv"), ("b.md", "text/markdown"), ("plot.png", "image/png")):
        digest = hashlib.sha256(files[name]).hexdigest()
        assert f'- "{name}" · {kind} · {len(files[name])} bytes · sha256 {digest}' in listed.text
    assert f'Next: fetch_artifacts(interaction_id="{one}", name="b.md"), or ' in listed.text
    assert {link.uri for link in listed.links} == {f"interactd://artifacts/{one}/{name}" for name in files}
    assert [item["name"] for item in fields(listed)["artifacts"]] == ["b.md", "out/a.csv", "plot.png"]
    only = await agents.ok("fetch_artifacts", interaction_id=one[:20], glob="*.csv")
    assert [item["name"] for item in fields(only)["artifacts"]] == ["out/a.csv"]
    assert 'that match "*.csv"' in only.text


@pytest.mark.parametrize(
    ("glob", "found"),
    [
        ("*", 4),
        ("**/*.csv", 2),
        ("*.csv", 2),
        ("out/*", 2),
        ("out/**", 2),
        ("/workspace/out/a.csv", 1),
        ("./b.csv", 1),
        ("[ab].csv", 2),
        ("?.md", 1),
    ],
)
async def test_globs_mean_what_people_mean(agents: AgentWorld, glob: str, found: int) -> None:
    one = await left(agents, {"out/a.csv": b"1", "out/c.txt": b"2", "b.csv": b"3", "d.md": b"4"})
    assert fields(await agents.ok("fetch_artifacts", interaction_id=one, glob=glob))["count"] == found


async def test_a_text_file_is_read_whole_with_its_path_and_link(agents: AgentWorld) -> None:
    one = await left(agents, {"notes.txt": "Grüße, 世界\n".encode()})
    read = await agents.ok("fetch_artifacts", interaction_id=one, name="notes.txt")
    assert read.text.startswith(f'"notes.txt" · text/plain · 16 bytes · interaction {one}\n\nGrüße, 世界\n')
    ids = fields(read)
    assert Path(ids["path"]).read_text() == "Grüße, 世界\n"
    assert f"Path: {ids['path']}" in read.text
    assert ids["next_offset"] is None
    assert [(link.uri, link.name) for link in read.links] == [(f"interactd://artifacts/{one}/notes.txt", "notes.txt")]
    for name in ("/workspace/notes.txt", "./notes.txt", '"notes.txt"', " notes.txt "):
        assert fields(await agents.ok("fetch_artifacts", interaction_id=one, name=name))["sha256"] == ids["sha256"]


LONG = "".join(f"Line {i}: wörd 世界 \n{'' if i % 7 else chr(10)}" for i in range(6000))


@pytest.mark.parametrize("limit", [None, 1000, 100_000])
@pytest.mark.parametrize("text", [LONG, "x" * 60_000, "世" * 30_000])
async def test_the_pieces_of_a_long_file_join_to_the_whole(agents: AgentWorld, text: str, limit: int | None) -> None:
    if limit == 1000:
        text = text[:9000]
    one = await left(agents, {"long.txt": text.encode()})
    arguments: dict[str, Any] = {"interaction_id": one, "name": "long.txt", **({"limit": limit} if limit else {})}
    pieces: list[str] = []
    while True:
        assert len(pieces) < 200
        read = await agents.ok("fetch_artifacts", **arguments)
        ids = fields(read)
        body = read.text.partition("\n\n")[2]
        pieces.append(re.split(r"\n\n(?:\[cut: |Path: )", body)[0])
        assert tokens(pieces[-1]) <= (2000 if limit is None else 8000)
        assert limit is None or len(pieces[-1]) <= limit
        if ids["next_offset"] is None:
            break
        assert f"offset={ids['next_offset']}" in read.text
        arguments = ids["next"]["arguments"]
        assert ids["next"]["tool"] == "fetch_artifacts"
    assert "".join(pieces) == text
    beyond = await agents.ok("fetch_artifacts", interaction_id=one, name="long.txt", offset=10**12)
    assert "[nothing after offset 1,000,000,000,000]" in beyond.text


@pytest.mark.parametrize(
    "data", [b"\x7fELF" + bytes(range(256)) * 20, b"text\0with nul", b"caf\xe9 latin-1", b"\xff\xfeU\0T\0F\0", b"\x80"]
)
async def test_what_is_no_text_is_never_shown_as_text(agents: AgentWorld, data: bytes) -> None:
    one = await left(agents, {"blob": data})
    read = await agents.ok("fetch_artifacts", interaction_id=one, name="blob")
    assert "[binary: not shown as text; use the path or the link]" in read.text
    assert Path(fields(read)["path"]).read_bytes() == data
    assert read.images == []
    for part in (b"ELF", b"with nul", b"latin-1", "café".encode()):
        assert part.decode() not in read.text.partition("[binary")[0]


async def test_a_character_cut_by_the_first_look_does_not_make_a_file_binary(agents: AgentWorld) -> None:
    one = await left(agents, {"a.txt": b"x" * 65535 + "é".encode() * 10, "empty": b""})
    assert "[binary" not in (await agents.ok("fetch_artifacts", interaction_id=one, name="a.txt")).text
    assert "(an empty file)" in (await agents.ok("fetch_artifacts", interaction_id=one, name="empty")).text


async def test_images_are_shown_as_images_and_broken_or_large_ones_by_their_path(agents: AgentWorld) -> None:
    images = {"a.png": png(), "b.gif": GIF, "c.jpg": JPEG, "d.webp": WEBP, "named.txt": png()}
    broken = {"cut.png": png()[:40], "large.png": png()[:-12] + b"\0" * MAX_BYTES + png()[-12:], "wide.png": png(9000)}
    one = await left(agents, {**images, **broken, "e.svg": b"<svg/>"})
    for name, data in images.items():
        read = await agents.ok("fetch_artifacts", interaction_id=one, name=name)
        assert [base64.b64decode(image.data) for image in read.images] == [data], name
        assert read.images[0].mime_type.startswith("image/")
        assert read.images[0].data[:20] not in read.text + str(read.structured)
    for name in broken:
        read = await agents.ok("fetch_artifacts", interaction_id=one, name=name)
        assert read.images == []
        assert "[an image that is too large, broken or cut off to be shown: use the path]" in read.text
    assert "<svg/>" in (await agents.ok("fetch_artifacts", interaction_id=one, name="e.svg")).text


def test_only_whole_images_of_a_sane_size_are_viewable() -> None:
    whole = [png(), GIF, JPEG, WEBP]
    assert [viewable(data) for data in whole] == ["image/png", "image/gif", "image/jpeg", "image/webp"]
    for data in whole:
        assert all(viewable(data[:size]) is None for size in range(len(data) - 2))
    assert viewable(png(8001)) is None
    assert viewable(png(0)) is None
    assert viewable(b"\xff\xd8\xff" * 100 + b"\xff\xd9") is None


NAMES = [
    *(b"new\nline.txt", b"back\\nslash.txt", b"bad\xff\xfe.txt", b"turn\xe2\x80\xaearound.txt", b"esc\x1b[31m.txt"),
    *(b"a b", b"..hidden", b"dots..inside", b"-rf", b"quote\"'.txt", b"%2e%2e", "日本.txt".encode(), b"n" * 255),
    *(b" lead", b"tab\t", b"d ir/..x/f", b"*.csv", b"[a]"),
]


async def test_files_of_any_name_are_shown_safely_and_fetched_exactly_as_listed(agents: AgentWorld) -> None:
    code = (
        "import os\n"
        f"for at, name in enumerate({NAMES!r}):\n"
        "    os.makedirs(os.path.dirname(name) or b'.', exist_ok=True)\n"
        "    open(name, 'wb').write(b'content %d' % at)\n"
    )
    one = (await agents.run(code))["interaction_id"]
    listed = await agents.ok("fetch_artifacts", interaction_id=one, limit=100)
    shown = [item["name"] for item in fields(listed)["artifacts"]]
    assert len(shown) == len(set(shown)) == len(NAMES)
    assert all(line.isprintable() for line in listed.text.split("\n"))
    contents: set[bytes] = set()
    for name in shown:
        read = await agents.ok("fetch_artifacts", interaction_id=one, name=name)
        contents.add(Path(fields(read)["path"]).read_bytes())
        assert read.links[0].uri.isascii()
        assert "/../" not in read.links[0].uri
    assert contents == {b"content %d" % at for at in range(len(NAMES))}
    for line in listed.text.split("\n"):
        if line.startswith("- "):
            # As a model copies it out of the list, JSON string and all.
            quoted = re.match(r'- ("(?:[^"\\]|\\.)*")', line)
            assert quoted
            assert not (
                await agents.call("fetch_artifacts", {"interaction_id": one, "name": json.loads(quoted[1])})
            ).is_error
    broken = await agents.ok("fetch_artifacts", interaction_id=one, name="new\nline.txt")
    assert Path(fields(broken)["path"]).read_bytes() == b"content 0"


async def test_a_name_that_is_not_there_is_an_error_with_near_ones(agents: AgentWorld) -> None:
    one = await left(agents, {"out/report.md": b"x", "data.csv": b"y"})
    for name, meant in (("report.md", "out/report.md"), ("dat.csv", "data.csv")):
        result = await agents.call("fetch_artifacts", {"interaction_id": one, "name": name})
        assert result.is_error
        assert result.text.startswith("not_found: there is no file ")
        assert f'Did you mean "{meant}"' in result.text
        assert f'Next: fetch_artifacts(interaction_id="{one}") lists them.' in result.text
    for name in ("../../etc/passwd", "/etc/passwd", "x" * 4000, "a\x1b[2J\n", "%2e%2e/x"):
        result = await agents.call("fetch_artifacts", {"interaction_id": one, "name": name})
        assert result.is_error
        assert result.text.isprintable()
        assert len(result.text) < 600
    assert "matches" in (await agents.call("fetch_artifacts", {"interaction_id": one, "glob": "*.exe"})).text


async def test_many_files_are_listed_page_by_page(agents: AgentWorld) -> None:
    code = "for i in range(700): open(f'f{i:04}.txt', 'w').write(str(i))"
    one = (await agents.run(code))["interaction_id"]
    seen: list[str] = []
    arguments: dict[str, Any] = {"interaction_id": one}
    while arguments:
        assert len(seen) < 1000
        listed = await agents.ok("fetch_artifacts", **arguments)
        assert tokens(listed.text) < 2300
        assert len(listed.links) <= 10
        seen += [item["name"] for item in fields(listed)["artifacts"]]
        following = fields(listed)["next_offset"]
        arguments = {"interaction_id": one, "offset": following} if following is not None else {}
        if following is not None:
            assert f'fetch_artifacts(interaction_id="{one}", offset={following})]' in listed.text
    assert seen == [f"f{i:04}.txt" for i in range(700)]
    three = fields(await agents.ok("fetch_artifacts", interaction_id=one, limit=3, offset=5))
    assert [item["name"] for item in three["artifacts"]] == ["f0005.txt", "f0006.txt", "f0007.txt"]
    assert "[nothing after place 9,999]" in (await agents.ok("fetch_artifacts", interaction_id=one, offset=9999)).text


async def test_many_are_packed_into_one_zip_that_can_be_fetched(agents: AgentWorld) -> None:
    files = {"a/1.csv": b"1", "a/2.csv": b"2", "b.md": b"3"}
    one = await left(agents, files)
    packed = await agents.ok("fetch_artifacts", interaction_id=one, glob="*.csv", zip=True)
    ids = fields(packed)
    assert packed.text.startswith("zip · 2 files · ")
    with zipfile.ZipFile(ids["path"]) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {"a/1.csv": b"1", "a/2.csv": b"2"}
    assert ids["uri"] == packed.links[0].uri
    assert packed.links[0].mime_type == "application/zip"
    assert hashlib.sha256(Path(ids["path"]).read_bytes()).hexdigest() == ids["sha256"]
    again = fields(await agents.ok("fetch_artifacts", interaction_id=one, glob="*.csv", zip=True))
    assert (again["path"], again["sha256"]) == (ids["path"], ids["sha256"])
    assert fields(await agents.ok("fetch_artifacts", interaction_id=one, zip=True))["count"] == 3
    single = fields(await agents.ok("fetch_artifacts", interaction_id=one, name="b.md", zip=True))
    assert zipfile.ZipFile(single["path"]).namelist() == ["b.md"]
    read = await agents.ok("fetch_artifacts", interaction_id=one, name=ids["name"])
    assert fields(read)["sha256"] == ids["sha256"]
    assert fields(await agents.ok("fetch_artifacts", interaction_id=one))["count"] == 3, "a zip is no file of the turn"
    refused = await agents.call("fetch_artifacts", {"interaction_id": one, "name": "b.md", "glob": "*"})
    assert "expected name or glob, got both" in refused.text


async def test_a_zip_that_takes_long_is_waited_for_in_the_next_call(
    agents: AgentWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await left(agents, {"a": b"1"})
    gate, pack = asyncio.Event(), agents.environments.zip_artifacts

    async def slowly(interaction_id: str, names: list[str]) -> Any:
        await gate.wait()
        return await pack(interaction_id, names)

    monkeypatch.setattr(agents.environments, "zip_artifacts", slowly)
    call: dict[str, Any] = {"interaction_id": one, "glob": "*", "zip": True}
    waiting = await agents.call("fetch_artifacts", call, deadline_s=0.3)
    assert not waiting.is_error
    assert "goes on by itself" in waiting.text
    assert fields(waiting)["next"]["arguments"] == call
    gate.set()
    assert fields(await agents.ok("fetch_artifacts", **call))["count"] == 1


async def test_what_was_not_kept_is_said(agents: AgentWorld) -> None:
    done = await agents.run("import os; os.symlink('/etc/passwd', 'link'); open('real', 'w').write('r')")
    listed = await agents.ok("fetch_artifacts", interaction_id=done["interaction_id"])
    assert '"real"' in listed.text
    assert re.search(r'Not kept:\n- 1 file, .*link.*: "link"', listed.text)
    alone = await agents.run("import os; os.symlink('/etc/shadow', 'only')", session_id=done["session_id"])
    assert "Not kept:" in (await agents.ok("fetch_artifacts", interaction_id=alone["interaction_id"])).text


async def test_a_turn_without_files_says_why(agents: AgentWorld, world: World) -> None:
    nothing = await agents.run("print(1)")
    result = await agents.ok("fetch_artifacts", interaction_id=nothing["interaction_id"])
    assert "it left no files" in result.text
    missing = await agents.call("fetch_artifacts", {"interaction_id": nothing["interaction_id"], "name": "a"})
    assert missing.text.startswith("not_found: ")
    turn = await world.turn(await world.session())
    result = await world.ok("fetch_artifacts", interaction_id=turn["interaction_id"])
    assert "only agents make files" in result.text


async def test_artifacts_go_with_their_session(agents: AgentWorld) -> None:
    done = await agents.run("open('a', 'w').write('secret')")
    path = Path(fields(await agents.ok("fetch_artifacts", interaction_id=done["interaction_id"], name="a"))["path"])
    packed = Path(fields(await agents.ok("fetch_artifacts", interaction_id=done["interaction_id"], zip=True))["path"])
    assert path.exists()
    await agents.ok("delete_session", session_id=done["session_id"])
    gone = await agents.call("fetch_artifacts", {"interaction_id": done["interaction_id"]})
    assert gone.is_error
    assert gone.text.startswith("deleted: ")
    assert not path.exists()
    assert not packed.exists()


async def test_later_runs_cannot_change_what_was_kept(agents: AgentWorld) -> None:
    first = await agents.run("open('a', 'w').write('one')")
    await agents.run("open('a', 'w').write('two')", session_id=first["session_id"])
    assert "one" in (await agents.ok("fetch_artifacts", interaction_id=first["interaction_id"], name="a")).text
    path = fields(await agents.ok("fetch_artifacts", interaction_id=first["interaction_id"], name="a"))["path"]
    assert Path(path).stat().st_mode & 0o077 == 0
