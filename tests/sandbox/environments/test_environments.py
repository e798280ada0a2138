"""Making, finding, sharing, forking, expiring and removing environments."""

from __future__ import annotations

import asyncio
import base64
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from interactd.errors import Conflict, Deleted, Expired, InteractdError, InvalidArgument, NotFound, SandboxUnavailable
from interactd.sandbox.port import Level
from sandbox.environments.kit import DAY, World, processes_over, world
from support.agent_folders import Home

pytestmark = pytest.mark.anyio


async def test_an_environment_is_made_found_listed_and_deleted_with_a_receipt(w: World) -> None:
    made = await w.environments.create({"env": {"A": "1"}, "limits": {"wall_s": 30}})
    await w.environments.create({}, owner="somebody")
    found = await w.environments.get(made.id[:20])
    assert (found.id, found.env, found.limits, found.status) == (made.id, {"A": "1"}, {"wall_s": 30.0}, "active")
    assert [one.id for one in await w.environments.list()] == [made.id]
    folder = w.folder(made.id).parent
    assert {stat.S_IMODE(p.stat().st_mode) for p in (folder, folder / "ws", folder / "home")} == {0o700}
    receipt = await w.environments.delete(made.id)
    assert receipt["environment_id"] == made.id
    assert await w.environments.delete(made.id) == receipt
    assert not folder.exists()
    assert await w.environments.list() == []
    for call in (w.environments.get(made.id), w.environments.files(made.id), _enter(w, made.id)):
        with pytest.raises(Deleted):
            await call


async def _enter(w: World, environment: str, **options: Any) -> None:
    async with w.environments.lease(environment, await w.interaction(), **options):
        pass


async def test_another_owner_sees_nothing_of_it(w: World) -> None:
    made = await w.environments.create({}, owner="a")
    for call in (
        w.environments.get(made.id, owner="b"),
        w.environments.delete(made.id, owner="b"),
        w.environments.create({"from_environment": made.id}, owner="b"),
        w.environments.files(made.id, owner="b"),
    ):
        with pytest.raises(NotFound):
            await call
    assert await w.environments.list(owner="b") == []


async def test_pages_hold_each_environment_once_last_used_first(w: World) -> None:
    ids: list[str] = []
    for _ in range(5):
        ids.append((await w.environments.create({})).id)
        w.clock.pass_s(1)
    seen: list[str] = []
    cursor: str | None = None
    while page := await w.environments.list(limit=2, cursor=cursor):
        seen += [one.id for one in page]
        cursor = page[-1].id
    assert seen == ids[::-1]


async def test_sources_are_put_where_they_were_asked_for(w: World, tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "src").mkdir(parents=True)
    (project / "src" / "a.py").write_text("print('a')\n")
    (project / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (project / "run.sh").chmod(0o755)
    (tmp_path / "secret").write_text("secret")
    (project / "inside").symlink_to("src/a.py")
    (project / "outside").symlink_to("../secret")
    (project / "absolute").symlink_to(tmp_path / "secret")
    os.mkfifo(project / "fifo")
    made = await w.environments.create(
        {
            "sources": [
                {"type": "inline", "target": "/workspace/in/text.txt", "content": "héllo"},
                {
                    "type": "inline",
                    "target": "data.bin",
                    "content": base64.b64encode(b"\0\xff").decode(),
                    "encoding": "base64",
                },
                {"type": "local", "source": "project", "target": "copy"},
                {"type": "local", "source": str(project), "target": "seen", "mode": "mount"},
                {"type": "local", "source": "project/run.sh"},
            ]
        },
        cwd=str(tmp_path),
    )
    async with w.environments.lease(made.id, await w.interaction()) as space:
        ran = await space.run_bash(
            "cat in/text.txt; sh run.sh; copy/run.sh; cat copy/inside; ls copy seen/src | tr '\\n' ' '"
        )
        assert ran.output == "hélloran\nran\nprint('a')\ncopy: inside run.sh src  seen/src: a.py "
        assert await space.read("data.bin") == b"\0\xff"
        denied = await space.run_bash("echo x > seen/src/a.py; echo x > copy/src/a.py && echo copied")
        assert "Read-only" in denied.output
        assert denied.output.endswith("copied\n")
        assert await space.read("seen/src/a.py") == b"print('a')\n"
        with pytest.raises(InvalidArgument, match="read-only"):
            await space.write("seen/src/b.py", b"x")
        assert [entry["path"] for entry in await space.list("/workspace/seen/src")] == ["seen/src/a.py"]
        assert "seen/src/a.py" in [entry["path"] for entry in await space.list(recursive=True)]
        with pytest.raises((InvalidArgument, NotFound)):
            await space.read("seen/outside")
        kept = await space.capture(await w.interaction())
        assert [file.name for file in kept] == ["copy/src/a.py"]
    assert (project / "src" / "a.py").read_text() == "print('a')\n"


async def test_what_is_kept_of_a_source_holds_no_content(w: World) -> None:
    made = await w.environments.create({"sources": [{"type": "inline", "target": "a", "content": "S3CRET-TEXT"}]})
    assert made.sources == [{"type": "inline", "target": "/workspace/a", "size_bytes": 11}]
    await w.environments.aclose()
    await w.store.aclose()
    assert not [p for p in w.paths.data.glob("interactd.db*") if b"S3CRET-TEXT" in p.read_bytes()]
    await w.store.open()


INLINE = {"type": "inline", "target": "a", "content": "x"}


@pytest.mark.parametrize(
    "body",
    [
        {"what": 1},
        {"type": "docker"},
        {"sources": "x"},
        {"sources": ["x"]},
        {"sources": [{"type": "gcs", "source": "gs://x"}]},
        {"sources": [{"type": "inline", "target": "a"}]},
        {"sources": [{"type": "inline", "content": "a"}]},
        {"sources": [{**INLINE, "target": "/"}]},
        {"sources": [{**INLINE, "target": "../a"}]},
        {"sources": [{**INLINE, "target": "/etc/passwd"}]},
        {"sources": [{**INLINE, "target": "."}]},
        {"sources": [{**INLINE, "target": "a\0b"}]},
        {"sources": [{**INLINE, "encoding": "rot13"}]},
        {"sources": [{**INLINE, "encoding": "base64", "content": "?"}]},
        {"sources": [{**INLINE, "content": "x" * (1 << 20) + "x"}]},
        {"sources": [{**INLINE, "target": str(n), "content": "x" * 900_000} for n in range(3)]},
        {"sources": [INLINE, INLINE]},
        {"sources": [INLINE, {**INLINE, "target": "a/b"}]},
        {"sources": [{**INLINE, "mode": "copy"}]},
        {"sources": [{**INLINE, "content": "\ud800"}]},
        {"sources": [INLINE] * 500},
        {"sources": [{"type": "local", "source": "relative"}]},
        {"sources": [{"type": "local", "source": "/"}]},
        {"sources": [{"type": "local", "source": "~"}]},
        {"sources": [{"type": "local", "source": "/etc", "mode": "move"}]},
        {"sources": [{"type": "local", "source": "/etc", "mode": "mount", "target": "."}]},
        {"sources": [{"type": "local", "source": "/etc/hostname", "mode": "mount"}]},
        {"sources": [{"type": "repository", "source": "http://example.org/a.git"}]},
        {"sources": [{"type": "repository", "source": "file:///etc"}]},
        {"sources": [{"type": "repository", "source": "https://user:pw@example.org/a"}]},
        {"sources": [{"type": "repository", "source": "--upload-pack=x"}]},
        {"sources": [{"type": "repository", "source": "https://example.org/a", "ref": "--output=x"}]},
        {"env": []},
        {"env": {"1A": "x"}},
        {"env": {"A": 1}},
        {"env": {"A": {"credential": "nobody"}}},
        {"env": {"LD_PRELOAD": "/workspace/x.so"}},
        {"env": {"A": "x" * 100_000}},
        {"network": "open"},
        {"network": {"allowlist": [{"domain": "a b"}]}},
        {"network": {"allow": []}},
        {"limits": {"memory_mb": 0}},
        {"limits": {"memory_mb": "big"}},
        {"limits": {"pids": 1.5}},
        {"limits": {"cpu": True}},
        {"limits": {"wall_s": float("nan")}},
        {"limits": {"unknown": 1}},
        {"from_environment": 3},
        {"from_environment": "ses_0"},
    ],
)
async def test_a_wrong_body_is_refused_by_field_and_nothing_is_made(w: World, body: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await w.environments.create(body)
    assert caught.value.fields.get("field")
    assert await w.environments.list() == []
    assert not (w.paths.data / "environments").exists() or list((w.paths.data / "environments").iterdir()) == []


async def test_a_source_that_is_missing_or_ours_is_refused(w: World, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        await w.environments.create({"sources": [{"type": "local", "source": str(tmp_path / "nowhere")}]})
    with pytest.raises(NotFound):
        await w.environments.create({"from_environment": "env_00000000000000000000000000"})
    (tmp_path / "link").symlink_to(w.paths.data)
    for ours in (w.paths.data, w.paths.data / "environments", tmp_path, tmp_path / "link"):
        with pytest.raises(InvalidArgument, match="own data"):
            await w.environments.create({"sources": [{"type": "local", "source": str(ours)}]})


async def test_a_folder_that_does_not_fit_is_refused_and_nothing_is_left(w: World, tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "file").write_bytes(os.urandom(3_000_000))
    body = {"sources": [{"type": "local", "source": str(tmp_path / "big")}], "limits": {"disk_mb": 2}}
    with pytest.raises(InvalidArgument, match="does not fit"):
        await w.environments.create(body)
    assert await w.environments.list() == []
    assert list((w.paths.data / "environments").iterdir()) == []


async def test_two_runs_on_one_environment_take_turns_in_order(w: World) -> None:
    environment = await w.environments.create({})
    order: list[str] = []
    inside = 0

    async def run(name: str) -> None:
        nonlocal inside
        async with w.environments.lease(environment.id, await w.interaction()) as space:
            inside += 1
            assert inside == 1
            await space.run_bash(f"echo {name} >> order; sleep 0.02")
            order.append(name)
            inside -= 1

    async with asyncio.TaskGroup() as group:
        for n in range(5):
            group.create_task(run(f"r{n}"))
            await asyncio.sleep(0)
    assert sorted(order) == ["r0", "r1", "r2", "r3", "r4"]
    assert (w.folder(environment.id) / "order").read_text().split() == order


async def test_an_environment_in_use_is_not_deleted_and_says_by_whom(w: World) -> None:
    environment = await w.environments.create({})
    id = await w.interaction()
    async with w.environments.lease(environment.id, id) as space:
        with pytest.raises(Conflict) as caught:
            await w.environments.delete(environment.id)
        assert caught.value.fields["interaction_id"] == id
        assert (await space.run_bash("echo on")).output == "on\n"
    await w.environments.delete(environment.id)


async def test_whoever_waits_for_a_deleted_environment_is_told(w: World) -> None:
    environment = await w.environments.create({})
    held, free = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with w.environments.lease(environment.id, await w.interaction()):
            held.set()
            await free.wait()

    holder = asyncio.create_task(first())
    await held.wait()
    deleting = asyncio.create_task(w.environments._end(await w.store.get_environment(environment.id) or {}, "deleting"))  # pyright: ignore[reportPrivateUsage]
    await asyncio.sleep(0)
    waiting = asyncio.create_task(_enter(w, environment.id))
    await asyncio.sleep(0.05)
    free.set()
    await holder
    await deleting
    with pytest.raises(Deleted):
        await waiting


async def test_a_fork_has_the_files_and_the_rules_and_then_its_own_life(w: World) -> None:
    base = await w.environments.create({"env": {"A": "1"}, "limits": {"wall_s": 33}})
    async with w.environments.lease(base.id, await w.interaction()) as space:
        await space.run_bash(
            "mkdir -p d/e; echo one > d/e/f; chmod 750 d/e/f; ln -s e/f d/link; truncate -s 50M holes; mkfifo fifo;"
            " touch -d 2001-01-01 d/e/f; echo kept > ~/home.txt"
        )
        await space.run_python("x = 1")
    began = time.monotonic()
    fork = await w.environments.create({"from_environment": base.id, "env": {"B": "2"}})
    took = time.monotonic() - began
    assert (fork.forked_from, fork.env, fork.limits) == (base.id, {"B": "2"}, {"wall_s": 33.0})
    async with w.environments.lease(fork.id, await w.interaction()) as space:
        seen = await space.run_bash(
            "cat d/link ~/home.txt; stat -c '%a %Y %U' d/e/f; stat -c '%s %b' holes; ls; echo $A$B"
        )
        # An image is copied whole; of a folder only what can be copied is.
        fifo = ["fifo"] if (w.paths.data / "environments" / fork.id / "disk.img").exists() else []
        assert seen.output.split() == [
            "one", "kept", "750", "978307200", "agent", "52428800", "0", "d", *fifo, "holes", "2",
        ]  # fmt: skip
        python = await space.run_python("x")
        assert not python.state_lost
        assert "NameError" in python.output
        await space.run_bash("echo changed > d/e/f")
    assert (w.folder(base.id) / "d" / "e" / "f").read_text() == "one\n"
    assert took < 5
    await w.environments.delete(base.id)
    assert (await w.environments.get(fork.id)).file_count == 3 + len(fifo)


async def test_an_idle_sandbox_stops_and_its_files_stay(w: World) -> None:
    environment = await w.environments.create({})
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        await space.run_python("x = 1\nopen('kept', 'w').write('kept')")
    w.clock.pass_s(899)
    await w.environments.tick()
    running = processes_over(w.paths.data)
    w.clock.pass_s(2)
    await w.environments.tick()
    assert running
    assert not processes_over(w.paths.data)
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        ran = await space.run_python("open('kept').read()")
    assert (ran.output, ran.state_lost) == ("'kept'\n", True)


async def test_seven_days_after_its_last_use_it_expires_and_says_so(w: World) -> None:
    environment = await w.environments.create({})
    w.clock.pass_s(6 * DAY)
    await _enter(w, environment.id)
    w.clock.pass_s(6 * DAY)
    await w.environments.tick()
    assert (await w.environments.get(environment.id)).expires_at > w.clock()
    w.clock.pass_s(1.1 * DAY)
    with pytest.raises(Expired):
        await w.environments.get(environment.id)
    assert await w.environments.list() == []
    await w.environments.tick()
    assert not w.folder(environment.id).exists()
    for call in (w.environments.get(environment.id), _enter(w, environment.id), w.environments.delete(environment.id)):
        with pytest.raises(Expired) as caught:
            await call
        assert caught.value.repair


async def test_a_run_keeps_its_environment_however_long_it_takes(w: World) -> None:
    environment = await w.environments.create({})
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        w.clock.pass_s(30 * DAY)
        await w.environments.tick()
        assert (await space.run_bash("echo on")).output == "on\n"
        assert [one.id for one in await w.environments.list()] == [environment.id]
    await w.environments.tick()
    assert (await w.environments.get(environment.id)).status == "active"


async def test_a_weaker_sandbox_than_required_is_refused_with_what_helps(tmp_path: Path) -> None:
    wanted: dict[str, Level] = {"filesystem": "enforced", "disk": "enforced", "syscalls": "enforced"}
    async with world(tmp_path / "home", images=False) as w:
        environment = await w.environments.create({})
        with pytest.raises(SandboxUnavailable) as caught:
            await _enter(w, environment.id, requires=wanted)
        assert caught.value.repair
        await _enter(w, environment.id, requires={"filesystem": "enforced", "network": "enforced"})


async def test_an_agents_folder_is_seen_read_only_and_changes_with_the_agent(w: World, tmp_path: Path) -> None:
    environment = await w.environments.create({})
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "AGENTS.md").write_text(name)
        async with w.environments.lease(environment.id, await w.interaction(), agent_folder=tmp_path / name) as space:
            assert await space.read("/agent/AGENTS.md") == name.encode()
            ran = await space.run_bash("cat /agent/AGENTS.md; echo x > /agent/x")
            assert ran.output.startswith(name)
            assert ran.exit.code != 0
            with pytest.raises(InteractdError):
                await space.write("/agent/x", b"x")


async def test_packages_put_into_home_persist_with_the_environment(w: World) -> None:
    environment = await w.environments.create({})
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        made = "import site, os\nos.makedirs(site.getusersitepackages(), exist_ok=True)\n"
        await space.run_python(made + "open(site.getusersitepackages() + '/mine.py', 'w').write('value = 7')")
    await w.restart()
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        assert (await space.run_python("import mine; mine.value")).output == "7\n"


async def test_without_network_there_is_none_and_the_log_is_empty(w: World) -> None:
    environment = await w.environments.create({"network": "disabled"})
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        ran = await space.run_python("import socket; socket.create_connection(('1.1.1.1', 80), 2)")
        assert "unreachable" in ran.output
        assert await space.egress_log() == []
        with pytest.raises(InvalidArgument, match="could not be cloned"):
            await w.environments.create({"sources": [{"type": "repository", "source": "https://host.invalid/a/b.git"}]})
    assert len(await w.environments.list()) == 1


async def test_an_agent_can_change_its_copies_of_read_only_sources(w: World, tmp_path: Path) -> None:
    """An agent's own `sources/` are kept read-only by hash; what is in its workspace is its own."""
    home = Home(tmp_path / "agents")
    sources = home.config_agent("mine") / "sources"
    (sources / "deep").mkdir(parents=True)
    (sources / "deep" / "notes.txt").write_text("kept\n")
    (sources / "tool.sh").write_text("#!/bin/sh\necho ran\n")
    (sources / "tool.sh").chmod(0o755)
    definition = home.resolve("mine")
    kept = definition.folder / "sources"
    assert stat.S_IMODE((kept / "tool.sh").stat().st_mode) == 0o555
    mounted = {"type": "local", "source": str(kept), "target": "fixed", "mode": "mount"}
    environment = await w.environments.create({"sources": [*definition.environment["sources"], mounted]})
    async with w.environments.lease(environment.id, await w.interaction()) as space:
        ran = await space.run_bash(
            "exec 2>&1\nstat -c '%a %U' deep deep/notes.txt tool.sh && echo more >> deep/notes.txt"
            " && echo new > deep/new && ./tool.sh && rm tool.sh && cat deep/notes.txt"
            "; echo x >> fixed/deep/notes.txt || echo refused"
        )
        assert ran.output.replace("\n", " ").startswith("755 agent 644 agent 755 agent ran kept more "), ran
        assert ran.output.endswith("refused\n")
    assert (kept / "deep" / "notes.txt").read_text() == "kept\n"
    assert (kept / "tool.sh").exists()
