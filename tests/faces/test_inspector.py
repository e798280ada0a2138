"""The official Inspector against the real daemon, on all three transports."""

from __future__ import annotations

from pathlib import Path

import pytest

from faces.kit import Json
from faces.world_kit import SHIM, World, world
from support.inspector import inspect

__all__ = ["world"]

pytestmark = [pytest.mark.anyio, pytest.mark.node, pytest.mark.timeout(400)]


def hosted(world: World, transport: str, face: Json) -> list[str]:
    """The Inspector's arguments for a transport."""
    if transport == "stdio":
        return [*SHIM, *(word for name, value in world.home.env.items() for word in ("-e", f"{name}={value}"))]
    url = face["url_mcp" if transport == "http" else "url_sse"]
    return [url, "--transport", transport, "--header", f"Authorization: {world.token['authorization']}"]


@pytest.mark.parametrize("transport", ["stdio", "http", "sse"])
async def test_the_inspector_lists_calls_and_reads(world: World, transport: str, tmp_path: Path) -> None:
    env = {"MCP_CATALOG_PATH": str(tmp_path / "catalog.json"), "HOME": str(tmp_path)}
    async with world.serving() as face:
        target = hosted(world, transport, face)
        listed = await inspect(*target, "--method", "tools/list", "--strict", env=env)
        assert listed.code == 0, listed.err
        assert "create_session" in [tool["name"] for tool in listed.result["tools"]]
        create = ["--method", "tools/call", "--tool-name", "create_session", "--tool-arg", "title=From the Inspector"]
        made = await inspect(*target, *create, env=env)
        assert made.code == 0, made.err
        resources = await inspect(*target, "--method", "resources/list", env=env)
        assert [resource["title"] for resource in resources.result["resources"]] == ["From the Inspector"]


@pytest.mark.long
async def test_the_inspector_tells_a_missing_tool_and_a_missing_token(world: World, tmp_path: Path) -> None:
    env = {"MCP_CATALOG_PATH": str(tmp_path / "catalog.json"), "HOME": str(tmp_path)}
    async with world.serving() as face:
        missing = ["--method", "tools/call", "--tool-name", "no_such_tool"]
        assert (await inspect(*hosted(world, "http", face), *missing, env=env)).code == 5
        turned = await inspect(face["url_mcp"], "--transport", "http", "--method", "tools/list", env=env)
        assert turned.code in {1, 3}
        assert not turned.out.strip()
