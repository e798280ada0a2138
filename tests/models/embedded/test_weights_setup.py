"""Fetching weights: resumed, checked, and safe to stop or kill at any moment."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from interactd import paths
from interactd.errors import NotSetUp, StorageFull, UnknownModel
from interactd.models.embedded import setup
from interactd.models.embedded.setup import Cancel, Cancelled, Progress
from interactd.models.embedded.weights.table import TABLE, Source, Url, Weights
from support.download import FileServer

PAYLOAD = random.Random(7).randbytes(3_000_000)


def entry(*sources: Source) -> Weights:
    digest = hashlib.sha256(PAYLOAD).hexdigest()
    return Weights("tiny", digest, len(PAYLOAD), 0, "none", "a test", "tiny.gguf", "", sources)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> paths.Paths:
    monkeypatch.delenv("INTERACTD_WEIGHTS", raising=False)
    return paths.find({"INTERACTD_HOME": str(tmp_path / "home")})


def test_a_download_is_private_and_has_its_hash_for_a_name(home: paths.Paths) -> None:
    seen: list[Progress] = []
    with FileServer(PAYLOAD).running() as server:
        wanted = entry(Url(server.url))
        path = setup.run(wanted, seen.append, paths=home)
    assert path == home.weights / f"{wanted.sha256}.gguf"
    assert path.read_bytes() == PAYLOAD
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.weights.stat().st_mode) == 0o700
    assert not list(home.weights.glob("*.part"))
    assert [state.phase for state in seen if state.phase != "downloading"][-1] == "ready"
    assert max(p.done for p in seen) == len(PAYLOAD)


def test_weights_that_are_here_touch_no_source(home: paths.Paths) -> None:
    with FileServer(PAYLOAD).running() as server:
        wanted = entry(Url(server.url))
        setup.run(wanted, paths=home)
        setup.run(wanted, paths=home)
        assert len(server.asked) == 1
    assert setup.run(replace(wanted, sources=()), paths=home).read_bytes() == PAYLOAD


@pytest.mark.parametrize("seed", range(8))
def test_a_connection_cut_at_any_point_is_taken_up_again(home: paths.Paths, seed: int) -> None:
    chance = random.Random(seed)
    cuts = [chance.choice([chance.randrange(1, 900_000), chance.randrange(1, 40)]) for _ in range(6)]
    with FileServer(PAYLOAD, cuts=cuts, length=seed % 2 == 0).running() as server:
        path = setup.run(entry(Url(server.url)), paths=home)
        assert path.read_bytes() == PAYLOAD
        assert server.sent == len(PAYLOAD), "no byte was fetched twice"
        assert len(server.asked) > 1


def test_a_server_without_ranges_is_read_again_without_losing_anything(home: paths.Paths) -> None:
    with FileServer(PAYLOAD, ranges=False, cuts=[1_000_000, 500_000]).running() as server:
        path = setup.run(entry(Url(server.url)), paths=home)
        assert server.asked == [None, "bytes=1000000-", "bytes=1000000-"]
    assert path.read_bytes() == PAYLOAD


def test_a_stopped_setup_goes_on_where_it_stopped(home: paths.Paths) -> None:
    cancel = Cancel()

    def stop(state: Progress) -> None:
        if state.done > 500_000:
            cancel.set()

    with FileServer(PAYLOAD, pause_s=0.01).running() as server:
        wanted = entry(Url(server.url))
        with pytest.raises(Cancelled):
            setup.run(wanted, stop, paths=home, cancel=cancel)
        part = home.weights / f"{wanted.sha256}.part"
        kept = part.stat().st_size
        assert kept > 500_000
        setup.run(wanted, paths=home)
        assert server.asked == [None, f"bytes={kept}-"]


KILLED = """
import sys
from interactd import paths
from interactd.models.embedded import setup
from interactd.models.embedded.weights.table import Url, Weights
url, digest, size, home = sys.argv[1:]
entry = Weights("tiny", digest, int(size), 0, "", "", "tiny.gguf", "", (Url(url),))
setup.run(entry, lambda p: print(p.done, flush=True), paths=paths.find({"INTERACTD_HOME": home}))
"""


@pytest.mark.parametrize("moment", [0, 200_000, 1_500_000, 2_900_000])
def test_a_setup_killed_at_any_moment_neither_blocks_nor_spoils_the_next(home: paths.Paths, moment: int) -> None:
    with FileServer(PAYLOAD, pause_s=0.02).running() as server:
        wanted = entry(Url(server.url))
        root = str(home.weights.parent.parent)
        command = [sys.executable, "-c", KILLED, server.url, wanted.sha256, str(wanted.bytes), root]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for line in child.stdout:
                if int(line) >= moment:
                    break
            os.kill(child.pid, signal.SIGKILL)
        assert not (home.weights / wanted.file).exists()
        server.pause_s = 0
        assert setup.run(wanted, paths=home).read_bytes() == PAYLOAD


def test_wrong_bytes_are_never_used_and_the_next_source_is_asked(home: paths.Paths) -> None:
    forged = b"x" + PAYLOAD[1:]
    with FileServer(forged).running() as bad, FileServer(PAYLOAD).running() as good:
        with pytest.raises(NotSetUp) as caught:
            setup.run(entry(Url(bad.url)), paths=home)
        assert "SHA-256" in caught.value.message
        assert [path.suffix for path in home.weights.iterdir()] == [".lock"]
        seen: list[Progress] = []
        path = setup.run(entry(Url(bad.url), Url(good.url)), seen.append, paths=home)
    assert path.read_bytes() == PAYLOAD
    assert [p.source for p in seen if p.phase == "source_failed"] == [bad.url]


def test_a_wrong_beginning_left_by_another_download_is_thrown_away_once(home: paths.Paths) -> None:
    with FileServer(PAYLOAD).running() as server:
        wanted = entry(Url(server.url))
        home.weights.mkdir(parents=True)
        (home.weights / f"{wanted.sha256}.part").write_bytes(b"\0" * 1_000_000)
        assert setup.run(wanted, paths=home).read_bytes() == PAYLOAD
        assert server.asked == ["bytes=1000000-", None]


def test_a_page_instead_of_the_file_is_refused_before_it_is_kept(home: paths.Paths) -> None:
    with FileServer(b"<html>log in first</html>").running() as server:
        with pytest.raises(NotSetUp) as caught:
            setup.run(entry(Url(server.url)), paths=home)
    assert "25 bytes" in caught.value.message
    assert not list(home.weights.glob("*.part"))


def test_no_source_at_all_says_what_was_tried_and_what_to_do(home: paths.Paths) -> None:
    with FileServer(PAYLOAD).running() as server:
        gone = server.url
    with pytest.raises(NotSetUp) as caught:
        setup.run(entry(Url(gone), Url(gone + "2")), paths=home)
    assert len(caught.value.fields["tried"]) == 2
    assert "cannot connect" in caught.value.message
    assert "interactd setup" in (caught.value.repair or "")
    assert "INTERACTD_WEIGHTS" in (caught.value.repair or "")


def test_a_disk_too_small_is_said_before_anything_is_fetched(home: paths.Paths) -> None:
    with FileServer(PAYLOAD).running() as server:
        with pytest.raises(StorageFull) as caught:
            setup.run(replace(entry(Url(server.url)), bytes=10**18), paths=home)
        assert server.asked == []
    assert caught.value.fields["needed_bytes"] > caught.value.fields["free_bytes"]


@pytest.mark.parametrize("name", ["hash", "official"])
def test_a_folder_of_downloaded_files_is_used_as_it_is(
    home: paths.Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    wanted = entry()
    folder = tmp_path / "mine"
    folder.mkdir()
    file = folder / (wanted.file if name == "hash" else wanted.filename)
    file.write_bytes(PAYLOAD)
    monkeypatch.setenv("INTERACTD_WEIGHTS", str(folder))
    assert setup.run(wanted, paths=home) == file
    file.write_bytes(b"y" + PAYLOAD[1:])
    with pytest.raises(NotSetUp):
        setup.run(wanted, paths=home)
    assert file.exists(), "another's file is never deleted"


def test_a_damaged_file_of_ours_is_fetched_anew(home: paths.Paths) -> None:
    with FileServer(PAYLOAD).running() as server:
        wanted = entry(Url(server.url))
        path = setup.run(wanted, paths=home)
        path.write_bytes(b"z" + PAYLOAD[1:])
        assert setup.run(wanted, paths=home).read_bytes() == PAYLOAD


def test_two_setups_at_once_download_once(home: paths.Paths) -> None:
    seen: list[Progress] = []
    started = threading.Event()

    def first(state: Progress) -> None:
        if state.done:
            started.set()

    with FileServer(PAYLOAD, pause_s=0.01).running() as server:
        wanted = entry(Url(server.url))
        other = threading.Thread(target=setup.run, args=(wanted, first), kwargs={"paths": home})
        other.start()
        assert started.wait(10)
        path = setup.run(wanted, seen.append, paths=home)
        other.join(10)
        assert len(server.asked) == 1
    assert path.read_bytes() == PAYLOAD
    assert seen[0].phase == "waiting"


@pytest.mark.anyio
async def test_the_asynchronous_form_reports_on_the_loop(home: paths.Paths) -> None:
    threads: set[int] = set()
    with FileServer(PAYLOAD).running() as server:
        path = await setup.run_async(
            entry(Url(server.url)), lambda state: threads.add(threading.get_ident()), paths=home
        )
    assert path.read_bytes() == PAYLOAD
    assert threads == {threading.get_ident()}


def test_an_unknown_name_lists_the_known_ones(home: paths.Paths) -> None:
    with pytest.raises(UnknownModel) as caught:
        setup.run("gpt-9", paths=home)
    assert "embedded/qwen2.5-coder-0.5b" in caught.value.fields["suggestions"]


def test_the_table_adds_up() -> None:
    for name, weights in TABLE.items():
        assert weights.name == name
        assert len(weights.sha256) == 64
        official, carrier = weights.sources
        assert isinstance(official, Url)
        assert not isinstance(carrier, Url)
        assert sum(part.bytes for part in carrier.parts) == weights.bytes
