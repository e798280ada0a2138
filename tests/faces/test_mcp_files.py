"""Files that agents left as resources, from a real sandbox to the wire."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from pathlib import Path
from urllib.parse import quote

import pytest

import interactd_tools
from engine.agents.kit import Rig, rig, runs
from faces.kit import Daemon, Json, Wire, connected
from interactd.faces.mcp.resources.uris import parse

pytestmark = pytest.mark.anyio

CODE = """
open('report.csv', 'w').write('x,y\\n')
open('blob', 'wb').write(bytes(range(256)))
open(b'odd \\n#?%2e\\xff.txt', 'w').write('odd')
import os; os.makedirs('a/b'); open('a/b/c.md', 'w').write('# C')
"""


@pytest.fixture
async def world(tmp_path: Path, anyio_backend: str) -> AsyncGenerator[tuple[Rig, str]]:
    async with rig(tmp_path) as made:
        async with Daemon(tmp_path / "home", interactd_tools, made.engine).listening() as path:
            yield made, path


async def content(wire: Wire, uri: str) -> Json:
    (found,) = (await wire.request("resources/read", {"uri": uri}))["result"]["contents"]
    assert found["uri"] == uri
    return found


async def test_files_of_recent_turns_are_listed_and_every_one_can_be_read(world: tuple[Rig, str]) -> None:
    made, path = world
    made.model.script(runs(CODE), "Done.", runs("open('later.txt', 'w').write('l')"), "Done.")
    first, second = await made.turn(), await made.turn()
    async with connected(path) as wire:
        await wire.initialize()
        listed = (await wire.request("resources/list"))["result"]["resources"]
        files = {one["uri"]: one for one in listed if one["uri"].startswith("interactd://artifacts/")}
        assert len(files) == 5
        assert f"interactd://artifacts/{second.interaction.id}/later.txt" in files
        report = f"interactd://artifacts/{first.interaction.id}/report.csv"
        assert files[report]["mimeType"] == "text/csv"
        assert files[report]["size"] == 4
        read = [await content(wire, uri) for uri in files]
        texts = {one["text"] for one in read if "text" in one}
        assert texts == {"x,y\n", "odd", "# C", "l"}
        (blob,) = [one for one in read if "blob" in one]
        assert base64.b64decode(blob["blob"]) == bytes(range(256))
        short = f"interactd://artifacts/{first.interaction.id[:28]}/a/b/c.md"
        assert (await content(wire, short))["text"] == "# C"
        ref = {"type": "ref/resource", "uri": "interactd://artifacts/{interaction_id}/{+name}"}
        params: Json = {
            "ref": ref,
            "argument": {"name": "name", "value": "a/"},
            "context": {"arguments": {"interaction_id": first.interaction.id}},
        }
        assert (await wire.request("completion/complete", params))["result"]["completion"]["values"] == ["a/b/c.md"]


async def test_links_of_fetch_artifacts_can_be_read_zips_too(world: tuple[Rig, str]) -> None:
    made, path = world
    made.model.script(runs(CODE), "Done.")
    done = await made.turn()
    async with connected(path) as wire:
        await wire.initialize()
        found: Json = {}
        several: list[Json] = [{}, {"name": "report.csv"}, {"zip": True}]
        for arguments in several:
            params: Json = {
                "name": "fetch_artifacts",
                "arguments": {"interaction_id": done.interaction.id, **arguments},
            }
            blocks = (await wire.request("tools/call", params))["result"]["content"]
            links = [block for block in blocks if block["type"] == "resource_link"]
            assert links
            for link in links:
                found = await content(wire, link["uri"])
                assert found["mimeType"] == link["mimeType"]
        assert base64.b64decode(found["blob"]).startswith(b"PK")


async def test_what_is_not_there_or_too_large_is_refused_in_words(
    world: tuple[Rig, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, path = world
    made.model.script(runs("open('large', 'w').write('x' * 5000)"), "Done.")
    one = (await made.turn()).interaction.id
    monkeypatch.setattr("interactd.faces.mcp.resources.files.MAX_BYTES", 4000)
    async with connected(path) as wire:
        await wire.initialize()
        for uri, words in (
            (f"interactd://artifacts/{one}/large", "5,000 bytes"),
            (f"interactd://artifacts/{one}/nothing", "nothing"),
            (f"interactd://artifacts/{one}/../../../etc/passwd", "no"),
            (f"interactd://artifacts/{one}/{quote('/etc/passwd', safe='')}", "no"),
            (f"interactd://artifacts/{one}/", "fetch_artifacts"),
            (f"interactd://artifacts/{one}", "fetch_artifacts"),
            ("interactd://artifacts/ses_1/a", "interaction"),
            ("interactd://artifacts/int_00000000000000000000000000/a", "int_"),
        ):
            error = (await wire.request("resources/read", {"uri": uri}))["error"]
            assert error["code"] in {-32602, -32002}
            assert words in error["message"]
            assert "root:" not in error["message"]
        refused = (await wire.request("resources/subscribe", {"uri": f"interactd://artifacts/{one}/large"}))["error"]
        assert "only interactions can be watched" in refused["message"]


@pytest.mark.parametrize("name", ["a.txt", "a b/ü?#%.txt", "x/%2e%2e/y", "日本", "a&b=c;d"])
def test_a_name_survives_its_uri(name: str) -> None:
    target = parse(f"interactd://artifacts/int_1/{quote(name)}")
    assert (target.kind, target.id, target.name) == ("artifact", "int_1", name)
