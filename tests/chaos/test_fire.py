"""The whole product in bad weather: daemons that stand still, full disks, files that vanish, upgrades, crowds."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from chaos.party import PATIENCE_S, Json, a_world, answer, call, kill, last_user_text
from interactd.shim import connect, link
from support.hosts import Home, Host
from support.provider import Reply

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(os.name != "posix", reason="signals and modes")]

INITIALIZE = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}


async def hello(host: Host) -> Json:
    """Initialize; returns the whole answer, be it an error."""
    message = await answer(host, host.ask("initialize", INITIALIZE))
    host.tell("notifications/initialized")
    return message


async def a_host(home: Home, **env: str) -> Host:
    host = home.host(real=True, **env)
    assert "result" in await hello(host)
    return host


async def refused(host: Host, tool: str, **arguments: object) -> str:
    """Call a tool that must fail; returns what the model or the person reads."""
    message = await answer(host, host.ask("tools/call", {"name": tool, "arguments": arguments}))
    if "error" in message:
        return message["error"]["message"]
    assert message["result"]["isError"], message
    return message["result"]["content"][0]["text"]


async def until(condition: object, within_s: float = PATIENCE_S) -> None:
    """Wait until the condition holds."""
    assert callable(condition)
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        await asyncio.sleep(0.02)


async def session_of(host: Host) -> str:
    return (await call(host, "create_session", {}))["session_id"]


async def test_a_daemon_that_stands_still_is_told_of_in_time_and_goes_on_afterwards(tmp_path: Path) -> None:
    async with a_world(tmp_path / "home") as (home, provider):
        old = await a_host(home)
        session = await session_of(old)
        pid = home.ready()
        os.kill(pid, signal.SIGSTOP)
        try:
            turn = old.ask("tools/call", {"name": "send_turn", "arguments": {"session_id": session, "input": "one"}})
            new = home.host(real=True, INTERACTD_START_TIMEOUT_S="3")
            began = time.monotonic()
            error = (await hello(new))["error"]
            assert time.monotonic() - began < 15
            assert f"pid {pid}" in error["message"]
            assert "interactd stop --now" in error["message"]
            assert home.daemons() == [pid]
        finally:
            os.kill(pid, signal.SIGCONT)
        assert (await answer(old, turn))["result"]["structuredContent"]["status"] == "completed"
        # The shim answers from its last failure for a second, and then tries again.
        for _ in range(100):
            if "result" in await hello(new):
                break
            await asyncio.sleep(0.05)
        assert (await call(new, "get_session", {"session_id": session}))["session_id"] == session
        assert home.daemons() == [pid]
        assert len(provider.requests) == 1


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_a_host_that_waits_on_a_dead_still_daemon_is_told_within_forty_seconds(tmp_path: Path) -> None:
    async with a_world(tmp_path / "home") as (home, provider):
        host = await a_host(home)
        turn: Json = {"session_id": await session_of(host), "input": "one", "idempotency_key": "k"}
        pid = home.ready()
        os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            assert "does not answer" in await refused(host, "send_turn", **turn)
            assert time.monotonic() - began < 40
        finally:
            os.kill(pid, signal.SIGCONT)
        await asyncio.sleep(1.1)  # the shim's memory of its failure
        assert (await call(host, "send_turn", turn))["status"] == "completed"
        assert len(provider.requests) == 1
        assert home.daemons() == [pid]


@asynccontextmanager
async def a_small_disk(folder: Path, size: str) -> AsyncGenerator[Path]:
    folder.mkdir()
    made = await asyncio.to_thread(
        subprocess.run, ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True
    )
    if made.returncode:
        pytest.skip(f"only root can mount a small disk: {made.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        await asyncio.to_thread(subprocess.run, ["umount", "-l", str(folder)], check=True)


@pytest.mark.skipif(not sys.platform.startswith("linux") or shutil.which("mount") is None, reason="needs tmpfs")
async def test_a_full_disk_refuses_in_words_loses_nothing_and_goes_on_with_room(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can mount a small disk")
    async with a_small_disk(tmp_path / "home", "4m") as root, a_world(root) as (home, provider):
        provider.default = Reply(text=["fine " * 8_000])
        host = await a_host(home)
        session = await session_of(host)
        done: list[str] = []
        turn: Json = {}
        words = ""
        for number in range(300):
            turn = {"session_id": session, "input": f"{number} " + "y" * 20_000, "idempotency_key": f"k{number}"}
            turn["wait_s"] = 2
            message = await answer(host, host.ask("tools/call", {"name": "send_turn", "arguments": turn}))
            if message["result"].get("isError"):
                words = message["result"]["content"][0]["text"]
                break
            done.append(message["result"]["structuredContent"]["interaction_id"])
        assert words.startswith("storage_full: ")
        assert "Free some space" in words
        assert done
        assert (await call(host, "get_session", {"session_id": session}))["session_id"] == session
        assert (await call(host, "get_interaction", {"interaction_id": done[-1]}))["status"] == "completed"
        await call(host, "search_history", {"query": "fine"})
        # Killed with not a byte of room left: the next one says why it cannot start, and starts when it can.
        fill(root / "ballast")
        kill(home.ready())
        assert "No space left" in await refused(host, "list_sessions")
        assert sorted(path.name for path in home.paths.state.glob("daemon.json*")) == ["daemon.json"]
        await asyncio.to_thread(subprocess.run, ["mount", "-o", "remount,size=40m", str(root)], check=True)
        await asyncio.sleep(1.1)  # the shim's memory of its failure
        assert (await call(host, "send_turn", {**turn, "wait_s": 30}))["status"] == "completed"
        for one in done:
            assert (await call(host, "get_interaction", {"interaction_id": one}))["status"] == "completed"
        # Whether the last one was refused at the door or with its answer in hand is up to the disk's last page.
        assert len(done) + 1 <= len(provider.requests) <= len(done) + 2


@pytest.mark.skipif(not sys.platform.startswith("linux") or shutil.which("mount") is None, reason="needs tmpfs")
async def test_an_answer_that_meets_a_full_disk_is_held_told_of_and_kept_when_there_is_room(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can mount a small disk")
    async with a_small_disk(tmp_path / "home", "4m") as root, a_world(root) as (home, provider):
        gate = asyncio.Event()
        provider.default = Reply(text=["paid for ", gate, "x" * 20_000])
        host = await a_host(home)
        turn: Json = {"session_id": await session_of(host), "input": "one", "background": True}
        id = (await call(host, "send_turn", turn))["interaction_id"]
        await provider.received(1)
        fill(root / "ballast")
        gate.set()
        words = await refused(host, "get_interaction", interaction_id=id, wait_s=2)
        assert words.startswith(f"storage_full: what {id} produced cannot be written yet")
        (root / "ballast").unlink()
        done = await call(host, "get_interaction", {"interaction_id": id, "wait_s": 30})
        assert done["status"] == "completed"
        assert len(provider.requests) == 1


def fill(ballast: Path) -> None:
    """Leave not a byte of room on the disk."""
    with ballast.open("ab", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 512)
        except OSError:
            return


async def test_a_database_that_was_removed_refuses_turns_instead_of_forgetting_them(tmp_path: Path) -> None:
    async with a_world(tmp_path / "home") as (home, provider):
        host = await a_host(home)
        turn: Json = {"session_id": await session_of(host), "input": "kept?"}
        home.paths.database.rename(tmp_path / "elsewhere")
        assert "was removed or replaced" in await refused(host, "send_turn", **turn)
        assert not (await call(host, "server_status", {})).get("isError")
        (tmp_path / "elsewhere").rename(home.paths.database)
        assert (await call(host, "send_turn", turn))["status"] == "completed"
        assert len(provider.requests) == 1


async def test_hosts_get_over_a_removed_socket_and_a_removed_state_folder(tmp_path: Path) -> None:
    async with a_world(tmp_path / "home") as (home, _):
        host = await a_host(home)
        session = await session_of(host)
        home.paths.socket.unlink()
        other = await a_host(home)
        assert (await call(other, "get_session", {"session_id": session}))["session_id"] == session
        shutil.rmtree(home.paths.state)
        third = await a_host(home)
        assert (await call(third, "get_session", {"session_id": session}))["session_id"] == session
        assert (await call(host, "send_turn", {"session_id": session, "input": "on"}))["status"] == "completed"
        await until(lambda: len(home.daemons()) == 1)


async def test_everything_that_is_made_is_the_users_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with a_world(tmp_path / "home", more="[daemon]\nlog_level = 'debug'\n") as (home, _):
            host = await a_host(home)
            await call(host, "send_turn", {"session_id": await session_of(host), "input": "one"})
            await call(host, "search_history", {"query": "one"})
            kill(home.ready())
            await call(host, "list_sessions", {})
            made = [path for path in (home.root, *home.root.rglob("*")) if path != home.paths.config_file]
            open_ones = {str(path): oct(path.lstat().st_mode) for path in made if path.lstat().st_mode & 0o077}
            assert open_ones == {}
            names = {path.name for path in made}
            assert {"interactd.db", "interactd.db-wal", "interactd.db-shm", "daemon.log", "daemon.json"} <= names
    finally:
        os.umask(before)


async def test_no_file_holds_a_byte_of_a_deleted_session(tmp_path: Path) -> None:
    async with a_world(tmp_path / "home", more="[daemon]\nlog_level = 'debug'\n") as (home, _):
        host = await a_host(home)
        sessions: list[str] = []
        for n in range(4):
            made: Json = {
                "title": f"zqx{n}title",
                "system_instruction": f"zqx{n}system",
                "labels": {"l": f"zqx{n}label"},
            }
            sessions.append(
                (await call(host, "create_session", {**made, "idempotency_key": f"zqx{n}key"}))["session_id"]
            )
            for word in ("first", "second"):
                turn: Json = {
                    "session_id": sessions[n],
                    "input": f"zqx{n}{word}",
                    "idempotency_key": f"zqx{n}{word}key",
                }
                await call(host, "send_turn", turn)
            await refused(host, "send_turn", session_id=sessions[n], input="x", **{f"zqx{n}odd": f"zqx{n}argument"})
            await call(host, "search_history", {"query": f"zqx{n}first"})
            if n == 1:
                kill(home.ready())

        def holding(n: int) -> list[str]:
            files = [path for path in home.root.rglob("*") if path.is_file()]
            return [path.name for path in files if f"zqx{n}".encode() in path.read_bytes()]

        for n, session in enumerate(sessions):
            assert holding(n)
            removed = (await call(host, "delete_session", {"session_id": session}))["removed"]
            assert (removed["interactions"], removed["steps"]) == (2, 4)
            assert holding(n) == []


async def test_a_daemon_with_a_queued_turn_does_not_leave_and_leaves_when_it_is_done(tmp_path: Path) -> None:
    async with a_world(tmp_path / "home", more="[daemon]\nidle_exit_s = 0.3\n") as (home, provider):
        gate = asyncio.Event()
        provider.script([Reply(text=["a", gate, "b"]), Reply("second")])
        host = await a_host(home)
        session = await session_of(host)
        for text in ("one", "two"):
            turn: Json = {"session_id": session, "input": text, "background": True, "if_busy": "queue"}
            last = (await call(host, "send_turn", turn))["interaction_id"]
        pid = home.ready()
        host.hang_up()
        await asyncio.sleep(1.5)  # five times what it would wait with nothing to do
        assert home.daemons() == [pid]
        gate.set()
        await until(lambda: home.daemons() == [])
        again = await a_host(home)
        assert (await call(again, "get_interaction", {"interaction_id": last}))["status"] == "completed"
        assert [last_user_text(request) for request in provider.requests] == ["one", "two"]


async def test_a_newer_version_takes_over_in_the_middle_of_a_turn(tmp_path: Path) -> None:
    async with a_world(tmp_path / "home") as (home, provider):
        host = await a_host(home)
        session = await session_of(host)
        key = host.ask("tools/call", {"name": "send_turn", "arguments": {"session_id": session, "input": "on"}})
        await provider.received(1)
        pid = home.ready()
        newer = {**connect.make_hello(home.paths, "mcp", "con_newer", {}), "version": "99.0"}
        with pytest.raises(link.Refused, match="makes way for 99"):
            await asyncio.to_thread(link.dial, home.paths, newer, deadline=time.monotonic() + 5)
        assert (await answer(host, key))["result"]["structuredContent"]["status"] == "completed"
        assert home.ready() != pid
        assert len(provider.requests) == 1, "a running step is finished before the daemon leaves"


async def test_a_configuration_broken_while_the_daemon_runs_is_told_by_the_next_one(tmp_path: Path) -> None:
    async with a_world(tmp_path / "home") as (home, _):
        host = await a_host(home)
        session = await session_of(host)
        good = home.paths.config_file.read_text()
        home.paths.config_file.write_text("][")
        assert (await call(host, "send_turn", {"session_id": session, "input": "one"}))["status"] == "completed"
        kill(home.ready())
        assert f"{home.paths.config_file}, line 1" in await refused(host, "list_sessions")
        home.paths.config_file.write_text(good)
        await asyncio.sleep(1.1)  # the shim's memory of its failure
        assert (await call(host, "get_session", {"session_id": session}))["session_id"] == session


async def crowd(root: Path, hosts: int, turns: int) -> None:
    async with a_world(root) as (home, provider):
        provider.default = Reply("fine.")
        them = await asyncio.gather(*(a_host(home) for _ in range(hosts)))

        async def talk(host: Host, name: int) -> None:
            session = await session_of(host)
            for n in range(turns):
                turn = await call(host, "send_turn", {"session_id": session, "input": f"{name}.{n}"})
                assert turn["status"] == "completed"

        await asyncio.gather(*(talk(host, name) for name, host in enumerate(them)))
        assert len(provider.requests) == hosts * turns
        assert len(home.daemons()) == 1


async def test_twelve_hosts_that_come_at_once_share_one_daemon(tmp_path: Path) -> None:
    await crowd(tmp_path / "home", 12, 5)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_fifty_hosts_of_twenty_turns_each_share_one_daemon(tmp_path: Path) -> None:
    await crowd(tmp_path / "home", 50, 20)


async def test_two_who_serve_the_same_port_do_not_harm_each_other(tmp_path: Path) -> None:
    async with a_world(tmp_path / "home") as (home, _):
        host = await a_host(home)
        command = [sys.executable, "-m", "interactd", "serve", "--port"]

        async def serve(port: str) -> asyncio.subprocess.Process:
            return await asyncio.create_subprocess_exec(
                *command, port, env=home.env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
            )

        first = await serve("0")
        assert first.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            line = (await first.stdout.readline()).decode()
        port = line.rpartition(":")[2].partition("/")[0]
        second = await serve(port)
        async with asyncio.timeout(PATIENCE_S):
            told, _ = await second.communicate()
        assert second.returncode == 1
        assert told.decode().startswith(f"conflict: cannot listen on 127.0.0.1:{port}")
        assert first.returncode is None
        first.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE_S):
            await first.communicate()
        assert first.returncode == 0
        assert (await call(host, "server_status", {}))["status"] == "ok"
