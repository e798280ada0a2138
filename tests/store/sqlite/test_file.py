from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from interactd.errors import StorageError
from interactd.store.sqlite import SqliteStore, connect, migrations
from store.kit import chain, create

pytestmark = pytest.mark.anyio


async def opened(file: Path) -> SqliteStore:
    store = SqliteStore(file)
    await store.open()
    return store


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
async def test_only_its_user_can_read_the_files(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "er" / "interactd.db"
    store = await opened(file)
    await create(store)
    for path in file.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    await store.aclose()
    file.chmod(0o644)
    await (await opened(file)).aclose()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_an_empty_file_is_migrated_to_the_latest_schema(tmp_path: Path) -> None:
    file = tmp_path / "interactd.db"
    file.touch()
    store = await opened(file)
    assert (await store.stats())["schema"] == migrations.LATEST
    await store.aclose()
    with sqlite3.connect(file) as db:
        strict = dict(db.execute("SELECT name, strict FROM pragma_table_list WHERE type = 'table'").fetchall())
        names = [row[0] for row in db.execute("SELECT name FROM _sqlite_migrations")]
    db.close()
    ours = ("sessions", "interactions", "steps", "idempotency_keys", "tombstones", "settings")
    assert {name: strict[name] for name in ours} == dict.fromkeys(ours, 1)
    assert names == [migration.__name__ for migration in migrations.ALL]


async def test_opening_a_file_of_today_imports_no_migration_tool(tmp_path: Path) -> None:
    file = tmp_path / "interactd.db"
    await (await opened(file)).aclose()
    code = (
        "import asyncio, sys; from pathlib import Path; from interactd.store.sqlite import SqliteStore\n"
        "async def main():\n s = SqliteStore(Path(sys.argv[1])); await s.open(); await s.aclose()\n"
        "asyncio.run(main()); assert 'sqlite_utils' not in sys.modules"
    )
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code, file], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "content", [b"not a database at all, just words\n" * 200, b"SQLite format 3\0" + b"\xff" * 9000]
)
async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "interactd.db"
    file.write_bytes(content)
    with pytest.raises(StorageError) as caught:
        await opened(file)
    assert "damaged" in str(caught.value)
    assert str(caught.value.repair)
    assert file.read_bytes() == content


async def test_damaged_pages_are_found_when_the_file_is_opened(tmp_path: Path) -> None:
    file = tmp_path / "interactd.db"
    store = await opened(file)
    session = await create(store)
    await chain(store, session.id, 60)
    await store.aclose()
    content = bytearray(file.read_bytes())
    for page in range(2, len(content) // 4096, 2):
        content[page * 4096 : page * 4096 + 600] = os.urandom(600)
    file.write_bytes(content)
    with pytest.raises(StorageError, match="damaged"):
        await opened(file)
    assert file.read_bytes() == content
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(StorageError, match="damaged"):
        await opened(file)


async def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "interactd.db"
    await (await opened(file)).aclose()
    with sqlite3.connect(file) as db:
        db.execute(f"PRAGMA user_version = {migrations.LATEST + 1}")
    db.close()
    with pytest.raises(StorageError, match="newer interactd") as caught:
        await opened(file)
    assert "Upgrade" in str(caught.value.repair)


async def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "interactd.db"
    with sqlite3.connect(file) as db:
        db.execute("CREATE TABLE notes (text)")
    db.close()
    content = file.read_bytes()
    with pytest.raises(StorageError, match="another program"):
        await opened(file)
    assert file.read_bytes() == content


async def test_a_folder_in_the_way_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "interactd.db").mkdir()
    with pytest.raises(StorageError):
        await opened(tmp_path / "interactd.db")
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be created"):
        await opened(tmp_path / "file" / "interactd.db")


async def test_a_migration_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "interactd.db"

    def broken(db: object) -> None:
        raise sqlite3.OperationalError("no such thing")

    with monkeypatch.context() as patch:
        patch.setattr(migrations, "ALL", (*migrations.ALL, broken))
        patch.setattr(migrations, "LATEST", 2)
        with pytest.raises(StorageError):
            await opened(file)
    db = sqlite3.connect(file)
    assert db.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)
    db.close()
    store = await opened(file)
    await create(store)
    await store.aclose()


OPENER = """
import asyncio, sys, time
from pathlib import Path
from interactd.nouns import Session
from interactd.ids import new_id
from interactd.store.sqlite import SqliteStore
async def main():
    sys.stdin.readline()
    store = SqliteStore(Path(sys.argv[1]))
    await store.open()
    for _ in range(30):
        await store.create_session(Session(new_id("session"), time.time(), time.time()))
    await store.aclose()
asyncio.run(main())
"""


async def test_processes_that_open_an_empty_file_at_once_all_succeed(tmp_path: Path) -> None:
    file = tmp_path / "interactd.db"
    children = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", OPENER, str(file), stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(3)
    ]
    ends = await asyncio.wait_for(asyncio.gather(*(child.communicate(b"go\n") for child in children)), 60)
    assert [child.returncode for child in children] == [0, 0, 0], ends
    store = await opened(file)
    assert (await store.stats())["sessions"] == 90
    await store.aclose()


def test_a_network_file_system_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = "/dev/vda / ext4 rw 0 0\nserver:/home /mnt/my\\040home nfs4 rw 0 0\n"
    monkeypatch.setattr(sys, "platform", "linux")

    def read(*_: object, **__: object) -> str:
        return mounts

    monkeypatch.setattr(Path, "read_text", read)
    connect.refuse_network(Path("/tmp/x.db"))
    connect.refuse_network(Path("/mnt/my home of other things/x.db"))
    with pytest.raises(StorageError, match="nfs4"):
        connect.refuse_network(Path("/mnt/my home/ann/x.db"))
