"""The set `data`: what goes out and comes back through tools, also for clients on other machines."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import interactd_tools
from engine.archive.world import World, world
from interactd.faces.mcp.resources.files import Files
from interactd.faces.mcp.resources.uris import parse
from interactd.nouns import LOCAL
from interactd_tools import CallContext, ToolResult

pytestmark = pytest.mark.anyio


@pytest.fixture
async def it(tmp_path: Path, anyio_backend: str) -> AsyncIterator[World]:
    async with world(tmp_path / "a") as made:
        yield made


async def called(it: World, name: str, **arguments: Any) -> ToolResult:
    return await interactd_tools.call(name, arguments, CallContext(it.engine), toolsets=["data"])


async def good(it: World, name: str, **arguments: Any) -> dict[str, Any]:
    result = await called(it, name, **arguments)
    assert not result.is_error, result.text
    assert result.structured is not None
    return result.structured


async def test_an_export_gives_a_path_a_hash_and_a_link_that_a_remote_client_reads(it: World, tmp_path: Path) -> None:
    session = await it.engine.create_session(model="scripted/m1")
    await it.turn(session.id, "hello " * 1000)
    result = await called(it, "export_data", session_ids=[session.id[:28]])
    assert result.text.startswith("exported · 1 session, 1 interaction, 2 steps")
    found = result.structured
    assert found is not None
    data = Path(found["path"]).read_bytes()
    assert (found["size_bytes"], found["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert [link.uri for link in result.links] == [found["uri"]]
    files, read, offset = Files(it.engine), b"", 0
    while offset is not None:
        piece = await files.read_export(parse(f"{found['uri']}?offset={offset}&limit=700"), LOCAL)
        read += base64.b64decode(piece["blob"])
        offset = piece["_meta"]["interactd/piece"]["next_offset"]
    assert read == data
    async with world(tmp_path / "b") as other:
        looked = await good(other, "import_data", path=found["path"], dry_run=True)
        assert looked["next"] == {"tool": "import_data", "arguments": {"path": found["path"]}}
        assert (await good(other, "import_data", path=found["path"]))["sessions"] == [session.id]
        assert (await good(other, "import_data", path=found["path"]))["skipped"] == 1
    # By its link, in the home that made it.
    assert (await good(it, "import_data", path=found["uri"]))["skipped"] == 1


async def test_what_is_wrong_with_an_archive_is_said_with_its_place(it: World, tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"no zip")
    for path, code in ((tmp_path / "x.zip", "invalid_argument"), (tmp_path / "y.zip", "not_found")):
        result = await called(it, "import_data", path=str(path))
        assert result.is_error
        assert result.text.startswith(f"{code}: ")
    result = await called(it, "import_data", path="interactd://exports/../../etc/passwd")
    assert result.is_error
    assert result.text.startswith("invalid_argument: ")


async def test_a_session_is_kept_for_ever_or_for_another_time(it: World) -> None:
    session = await it.engine.create_session(model="scripted/m1", ttl_s=60)
    assert "expires_at" not in await good(it, "keep_session", session_id=session.id, ttl="forever")
    await good(it, "keep_session", session_id=session.id, ttl="7d")
    kept = await it.engine.get_session(session.id)
    assert (kept.ttl_s, kept.expires_at) == (7 * 86400, it.clock.now + 7 * 86400)
    # One that is over, but still there, comes back.
    it.clock.now += 30 * 86400
    await good(it, "keep_session", session_id=session.id)
    assert (await it.engine.get_session(session.id)).state == "active"


async def test_the_storage_is_shown_with_what_goes_when(it: World) -> None:
    await it.engine.create_session(model="scripted/m1", title="Soon gone", ttl_s=3600)
    await it.engine.create_session(model="scripted/m1", ttl_s=0)
    result = await called(it, "get_storage")
    assert "Soon gone" in result.text
    assert result.structured is not None
    assert result.structured["sessions"] == {"overdue": 0, "day": 1, "week": 0, "later": 0, "never": 1}
