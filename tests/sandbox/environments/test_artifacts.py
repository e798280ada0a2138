"""What is kept of a run: only its own files, only real ones, until the session goes."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from interactd.errors import Deleted, InvalidArgument, NotFound
from interactd.sandbox.environments import CaptureLimits
from interactd.sandbox.environments.capture import capture
from interactd.sandbox.environments.contents import Contents
from interactd.sandbox.environments.mime import guess
from sandbox.environments.kit import World, world

pytestmark = pytest.mark.anyio


async def test_new_and_changed_files_are_kept_and_the_others_are_not(w: World) -> None:
    environment = await w.environments.create(
        {"sources": [{"type": "inline", "target": "in.csv", "content": "a\n1\n"}]}
    )
    first, second = await w.interaction(), await w.interaction()
    async with w.environments.lease(environment.id, first) as space:
        await space.run_python("open('out.txt', 'w').write('one')\nopen('same.txt', 'w').write('same')")
        await space.write("report/summary.md", b"# Hi\n")
        names = {file.name for file in await space.capture(first)}
    assert names == {"out.txt", "same.txt", "report/summary.md"}
    async with w.environments.lease(environment.id, second) as space:
        await space.run_bash("echo two > out.txt; cat same.txt in.csv > /dev/null")
        kept = await space.capture(second)
    assert [file.name for file in kept] == ["out.txt"]
    assert (await w.environments.read_artifact(first, "out.txt"))[1] == b"one"
    file, data = await w.environments.read_artifact(second, "out.txt")
    assert data == b"two\n"
    assert file.sha256 == hashlib.sha256(data).hexdigest()
    assert file.size_bytes == 4
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


async def test_a_second_daemon_that_starts_leaves_alone_what_the_first_is_keeping(w: World) -> None:
    folder = w.environments._kept.contents  # pyright: ignore[reportPrivateUsage]
    being_written = folder.tmp / "half"
    being_written.write_bytes(b"of the first daemon's file")
    for lives in (True, False):
        if not lives:
            os.close(folder._held)  # pyright: ignore[reportPrivateUsage] - as its death does
            folder._held = -1  # pyright: ignore[reportPrivateUsage]
        second = Contents(folder.root)
        second.make()
        assert being_written.exists() is lives, "what is there when nobody holds it is a dead daemon's"
        second.close()


async def test_a_run_that_goes_on_after_a_pause_or_a_crash_keeps_its_early_files_too(w: World) -> None:
    environment = await w.environments.create({})
    mine, other = await w.interaction(), await w.interaction()
    async with w.environments.lease(environment.id, mine) as space:
        await space.write("early.txt", b"1")
    await w.restart()
    async with w.environments.lease(environment.id, other) as space:
        assert await space.capture(other) == []
    async with w.environments.lease(environment.id, mine) as space:
        await space.write("late.txt", b"2")
        assert [file.name for file in await space.capture(mine)] == ["early.txt", "late.txt"]


async def test_capturing_twice_replaces_what_has_the_same_name(w: World) -> None:
    environment = await w.environments.create({})
    id = await w.interaction()
    async with w.environments.lease(environment.id, id) as space:
        await space.write("a.txt", b"first")
        await space.capture(id)
        await space.write("a.txt", b"second")
        assert len(await space.capture(id)) == 1
    assert (await w.environments.read_artifact(id, "a.txt"))[1] == b"second"
    await w.environments.delete_artifacts("ses_any")
    assert len(w.contents()) == 1, "the content that nothing refers to is gone"


async def test_links_fifos_devices_holes_and_hard_links_are_left_out_and_said(w: World, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("host secret")
    environment = await w.environments.create({"limits": {"file_mb": 4096}})
    id = await w.interaction()
    async with w.environments.lease(environment.id, id) as space:
        await space.run_bash(
            f"ln -s {tmp_path}/secret stolen; ln -s /etc etc; mkfifo fifo; echo x > one; ln one two;"
            " truncate -s 2G holes; truncate -s 100M more; echo fine > fine.txt;"
            " mkdir -p .git node_modules/x venv; echo 1 > .git/config;"
            " echo 1 > node_modules/x/y.js; touch venv/pyvenv.cfg venv/z"
        )
        began = time.monotonic()
        kept = await space.capture(id)
        assert time.monotonic() - began < 10
        left = {name: entry["reason"] for entry in space.left_out for name in entry["names"]}
    assert [file.name for file in kept] == ["fine.txt"]
    assert {"stolen", "etc", "fifo", "one", "two", "holes", "more", ".git", "node_modules", "venv"} <= left.keys()
    assert "larger" in left["holes"]
    assert "holes" in left["more"]
    assert "several names" in left["one"]
    assert await w.environments.left_out(id) == space.left_out
    assert sum(path.stat().st_size for path in w.contents()) == 5


async def test_the_caps_on_files_and_bytes_hold(tmp_path: Path) -> None:
    limits = CaptureLimits(files=5, total_bytes=1000, file_bytes=400)
    async with world(tmp_path / "home", capture_limits=limits) as w:
        environment = await w.environments.create({})
        id = await w.interaction()
        async with w.environments.lease(environment.id, id) as space:
            await space.write("a", b"a" * 401)
            for name in "bcdefghi":
                await space.write(name, name.encode() * 300)
            kept = await space.capture(id)
            reasons = {entry["reason"]: entry["count"] for entry in space.left_out}
    assert len(kept) == 3
    assert sum(reasons.values()) == 6


def test_a_file_swapped_for_a_link_in_a_loop_never_leaks_a_host_file(tmp_path: Path) -> None:
    """The swapping is done by a process of the host, which may do all that a sandbox may, and faster."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "out.txt").write_text("HOST SECRET")
    workspace = tmp_path / "ws"
    (workspace / "d").mkdir(parents=True)
    contents = Contents(tmp_path / "kept")
    contents.make()
    swap = (
        "import os, sys\n"
        "ws, secret = sys.argv[1:]\n"
        "os.chdir(ws)\n"
        "print('go', flush=True)\n"
        "n = 0\n"
        "while os.getppid() > 1:\n"
        "    n += 1\n"
        "    open('t', 'w').write('mine'); os.replace('t', 'out.txt')\n"
        "    os.symlink(secret + '/out.txt', 't'); os.replace('t', 'out.txt')\n"
        "    os.mkfifo('t'); os.replace('t', 'out.txt')\n"
        "    os.rename('d', 'e'); os.symlink(secret, 'd'); os.unlink('d'); os.rename('e', 'd')\n"
        "    open('d/out.txt', 'w').write('mine')\n"
    )
    with subprocess.Popen([sys.executable, "-c", swap, str(workspace), str(secret)], stdout=subprocess.PIPE) as loop:
        assert loop.stdout is not None
        assert loop.stdout.readline() == b"go\n"
        try:
            seen: set[bytes] = set()
            until = time.monotonic() + 4
            rounds = 0
            while time.monotonic() < until:
                done = capture(workspace, contents, since_ns=0, limits=CaptureLimits())
                rounds += 1
                for kept in done.kept:
                    seen.add(kept.part.read_bytes())
                    kept.part.unlink()
        finally:
            loop.kill()
    assert rounds > 50
    assert seen
    assert seen <= {b"mine", b""}


async def test_names_are_printable_and_unpack_safely(w: World) -> None:
    environment = await w.environments.create({})
    id = await w.interaction()
    make = (
        "import os\nos.mkdir('sub')\n"
        "for n in (b'new\\nline.txt', b'\\xff.bin', b'..\\\\..\\\\evil.txt', b'sub/C:x', b'A.txt', b'a.txt', b'...'):\n"
        "    open(n, 'wb').write(n)"
    )
    async with w.environments.lease(environment.id, id) as space:
        assert (await space.run_python(make)).exit.code == 0
        kept = await space.capture(id)
    names = [file.name for file in kept]
    assert all(name.isprintable() and ".." not in name.split("/") for name in names)
    assert "new\\nline.txt" in names
    assert "\\xff.bin" in names
    packed = await w.environments.zip_artifacts(id, [])
    with zipfile.ZipFile(packed.path) as archive:
        inside = archive.namelist()
        assert archive.testzip() is None
    assert len({name.lower() for name in inside}) == len(kept)
    assert not [n for n in inside if "\\" in n or ":" in n or n.startswith("/") or ".." in n.split("/")]


async def test_reading_by_name_id_offset_and_limit(w: World) -> None:
    environment = await w.environments.create({})
    id = await w.interaction()
    async with w.environments.lease(environment.id, id) as space:
        await space.write("data/numbers.csv", b"0123456789" * 10)
        kept = await space.capture(id)
    read = w.environments.read_artifact
    assert (await read(id, "data/numbers.csv", offset=95, limit=100))[1] == b"56789"
    assert (await read(id, kept[0].id, offset=500))[1] == b""
    assert (await read(id, "/workspace/data/numbers.csv", limit=3))[1] == b"012"
    with pytest.raises(NotFound) as caught:
        await read(id, "data/number.csv")
    assert caught.value.fields["suggestions"] == ["data/numbers.csv"]
    with pytest.raises(InvalidArgument):
        await read(id, "data/numbers.csv", offset=-1)
    assert await w.environments.artifacts("int_none") == []


async def test_a_zip_of_the_same_files_is_the_same_zip(w: World) -> None:
    environment = await w.environments.create({})
    id = await w.interaction()
    async with w.environments.lease(environment.id, id) as space:
        for name in ("a.txt", "b.txt", "c.txt"):
            await space.write(name, name.encode())
        await space.capture(id)
    one = await w.environments.zip_artifacts(id, ["a.txt", "b.txt"])
    two = await w.environments.zip_artifacts(id, ["b.txt", "a.txt", "a.txt"])
    every = await w.environments.zip_artifacts(id, [])
    assert one == two
    assert every.sha256 != one.sha256
    assert (await w.environments.read_artifact(id, one.name))[1] == one.path.read_bytes()
    with pytest.raises(NotFound):
        await w.environments.zip_artifacts(id, ["nope"])


async def test_deleting_the_session_removes_rows_and_files_but_not_what_others_share(w: World) -> None:
    environment = await w.environments.create({})
    first, second = await w.interaction(), await w.interaction()
    for id, own in ((first, b"first's own"), (second, b"second's own")):
        async with w.environments.lease(environment.id, id) as space:
            await space.write("shared.txt", b"shared")
            await space.write("own.txt", own)
            await space.capture(id)
    await w.environments.zip_artifacts(first, [])
    assert len(w.contents()) == 4
    await w.forget(first)
    assert await w.environments.artifacts(first) == []
    assert sorted(path.read_bytes() for path in w.contents()) == [b"second's own", b"shared"]
    assert (await w.environments.read_artifact(second, "shared.txt"))[1] == b"shared"
    await w.forget(second)
    assert w.contents() == []


async def test_a_capture_for_a_deleted_interaction_keeps_nothing(w: World) -> None:
    environment = await w.environments.create({})
    id = await w.interaction()
    async with w.environments.lease(environment.id, id) as space:
        await space.write("a.txt", b"late")
        await w.forget(id)
        with pytest.raises(Deleted):
            await space.capture(id)
    assert w.contents() == []


async def test_later_runs_do_not_change_what_was_kept(w: World) -> None:
    environment = await w.environments.create({})
    id = await w.interaction()
    async with w.environments.lease(environment.id, id) as space:
        await space.write("a.txt", b"as it was")
        await space.capture(id)
        await space.run_bash("echo changed > a.txt; rm -f a.txt")
    await w.environments.delete(environment.id)
    assert (await w.environments.read_artifact(id, "a.txt"))[1] == b"as it was"


@pytest.mark.parametrize(
    ("name", "first", "kind"),
    [
        ("a.png", b"\x89PNG\r\n\x1a\n....", "image/png"),
        ("a.png", b"<html>", "text/plain"),
        ("a.txt", b"\x89PNG\r\n\x1a\n....", "image/png"),
        ("a.csv", b"a,b\n", "text/csv"),
        ("a.json", b'{"a": 1}', "application/json"),
        ("notes", "héllo".encode(), "text/plain"),
        ("cut.txt", "é".encode()[:1].rjust(10, b"x"), "text/plain"),
        ("a.bin", b"\x00\x01", "application/octet-stream"),
        ("a.md", b"# Hi", "text/markdown"),
        ("a.svg", b"<svg/>", "image/svg+xml"),
        ("a.xlsx", b"PK\x03\x04....", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
        ("a.zip", b"PK\x03\x04....", "application/zip"),
        ("empty.txt", b"", "text/plain"),
        ("liar.txt", b"\xff\xd8\xff\xe0", "image/jpeg"),
        ("liar.pdf", b"\x00\x00", "application/octet-stream"),
    ],
)
def test_the_type_is_guessed_from_the_bytes_first(name: str, first: bytes, kind: str) -> None:
    assert guess(name, first) == kind


async def test_a_full_disk_while_keeping_leaves_nothing_half_kept(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = await w.environments.create({})
    id = await w.interaction()
    real = os.write

    def full(fd: int, data: bytes) -> int:
        if len(data) == 7777:
            raise OSError(28, "No space left on device")
        return real(fd, data)

    async with w.environments.lease(environment.id, id) as space:
        await space.write("good.txt", b"good")
        await space.write("large.bin", b"x" * 7777)
        monkeypatch.setattr(os, "write", full)
        kept = await space.capture(id)
        monkeypatch.undo()
    assert [file.name for file in kept] == ["good.txt"]
    assert "No space" in space.left_out[0]["reason"]
    assert len(w.contents()) == 1
