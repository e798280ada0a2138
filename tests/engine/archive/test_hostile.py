"""Archives that somebody else made, or that were damaged on the way: refused with the place, and nothing is kept."""

from __future__ import annotations

import json
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.archive.kit import MANIFEST, Rig, exported, fill, home, imported, rewritten
from interactd.engine.archive import layout
from interactd.errors import InteractdError, InvalidArgument, NotFound, StorageFull

pytestmark = pytest.mark.anyio
Members = dict[str, bytes]


@pytest.fixture
async def sound(tmp_path: Path) -> Path:
    """A sound archive."""
    async with home(tmp_path / "a") as it:
        await fill(it)
        return (await exported(it, tmp_path / "sound.zip")).path


async def refused(tmp_path: Path, path: Path) -> InteractdError:
    """Import into an empty home, which must stay empty; returns the error."""
    async with home(tmp_path / "b") as it:
        with pytest.raises(InteractdError) as caught:
            await imported(it, path)
        await is_empty(it)
        # And the same when it is only looked at.
        with pytest.raises(type(caught.value)):
            await imported(it, path, dry_run=True)
    assert list((tmp_path / "b" / "imports").iterdir()) == []
    return caught.value


async def is_empty(it: Rig) -> None:
    stats = await it.store.stats()
    assert (stats["sessions"], stats["interactions"], stats["steps"]) == (0, 0, 0)


def edit(name: str, number: int, change: Callable[[dict[str, Any]], None]) -> Callable[[Members], None]:
    """Change one record, counted from 1."""

    def apply(members: Members) -> None:
        lines = members[name].splitlines(keepends=True)
        record = json.loads(lines[number - 1])
        change(record)
        lines[number - 1] = layout.line(record)
        members[name] = b"".join(lines)

    return apply


def put(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda record: record.update(fields)


def drop(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda record: record.pop(name)


OTHER = "int_" + "0" * 26
RECORDS: dict[str, tuple[str, int, Callable[[dict[str, Any]], None], str]] = {
    "an id of the wrong form": ("sessions.jsonl", 2, put(id="ses_../../etc"), "id: expected an id"),
    "an id of another kind": ("sessions.jsonl", 1, put(id=OTHER), "id: expected an id"),
    "an unknown field": ("sessions.jsonl", 1, put(surprise=1), "unknown field 'surprise'"),
    "a missing field": ("sessions.jsonl", 1, drop("created_at"), "created_at is missing"),
    "a number for a text": ("sessions.jsonl", 1, put(title=5), "title: expected text"),
    "a text for a number": ("interactions.jsonl", 1, put(depth="1"), "depth: expected a whole number"),
    "a boolean for a number": ("interactions.jsonl", 1, put(epoch=True), "epoch: expected a whole number"),
    "a time out of range": ("interactions.jsonl", 1, put(created_at=1e300), "created_at: 1e+300 is out of range"),
    "a status that is none": ("interactions.jsonl", 1, put(status="done"), "status: 'done'"),
    "a config that nobody reads": ("sessions.jsonl", 1, put(generation_config={"x": 1}), "do not fit"),
    "usage that nobody reads": ("interactions.jsonl", 1, put(usage={"total_x_tokens": 1}), "do not fit"),
    "labels that are no texts": ("sessions.jsonl", 1, put(labels={"a": 1}), "labels: expected texts"),
    "a pin that is no hash": ("sessions.jsonl", 1, put(agent_pins={"a": "../x"}), "agent_pins"),
    "a title with NUL": ("sessions.jsonl", 1, put(title="a\0b"), "NUL"),
    "a session that is not there": (
        "interactions.jsonl",
        1,
        put(session_id="ses_" + "0" * 26),
        "is not in the archive",
    ),
    "a turn that is not there": ("interactions.jsonl", 2, put(previous_interaction_id=OTHER), "is not in the archive"),
    "a head that is not there": ("sessions.jsonl", 1, put(head=OTHER), "head: "),
    "a wrong number of turns": ("sessions.jsonl", 1, put(turns=99), "turns: is 99"),
    "a wrong depth": ("interactions.jsonl", 2, put(depth=7), "depth: is 7 after one of 1"),
    "a root with a depth": ("interactions.jsonl", 1, put(depth=2), "depth: 2 does not fit"),
    "a step out of order": ("steps.jsonl", 2, put(seq=5), "step 5 of"),
    "a step of another turn": ("steps.jsonl", 1, put(interaction_id=OTHER), f"step 0 of {OTHER} stands where"),
    "a step without a body": ("steps.jsonl", 1, put(body=[]), "body: expected an object"),
    "a step with odd content": ("steps.jsonl", 1, put(body={"content": ["x"]}), "body.content"),
    "one step too few": ("interactions.jsonl", 1, put(steps=99), "stands where step"),
}


@pytest.mark.parametrize("what", RECORDS)
async def test_a_record_that_is_wrong_is_named_with_its_line(tmp_path: Path, sound: Path, what: str) -> None:
    name, number, change, says = RECORDS[what]
    error = await refused(tmp_path, rewritten(sound, edit(name, number, change)))
    assert isinstance(error, InvalidArgument)
    assert says in error.message
    assert error.fields["member"] in (name, "steps.jsonl")
    assert f"{error.fields['member']} line {error.fields['line']}: " in error.message


async def test_a_circle_of_turns_is_refused(tmp_path: Path, sound: Path) -> None:
    def turn_round(members: Members) -> None:
        lines = [json.loads(line) for line in members["interactions.jsonl"].splitlines()]
        mine = [one for one in lines if one["session_id"] == lines[0]["session_id"]]
        mine[0]["previous_interaction_id"], mine[0]["depth"] = mine[1]["id"], 3
        members["interactions.jsonl"] = b"".join(map(layout.line, lines))

    error = await refused(tmp_path, rewritten(sound, turn_round))
    assert "goes in a circle" in error.message
    assert "interactions.jsonl line " in error.message


def append(name: str, data: bytes) -> Callable[[Members], None]:
    def apply(members: Members) -> None:
        members[name] = members.get(name, b"") + data

    return apply


def twice(name: str) -> Callable[[Members], None]:
    def apply(members: Members) -> None:
        members[name] += members[name].splitlines(keepends=True)[0]

    return apply


SHAPES: dict[str, tuple[Callable[[Members], object], str]] = {
    "a path that leads out": (append("../evil", b"x"), "no archive has a member of this name"),
    "a path that is whole": (append("/etc/passwd", b"x"), "no archive has a member of this name"),
    "a path inside an agent that leads out": (
        append(f"agents/{'0' * 64}/folder/../../x", b"x"),
        "no archive has a member of this name",
    ),
    "a content of another name": (append(f"artifacts/{'0' * 64}", b"x"), "belongs to no record"),
    "a workspace of no environment": (append(f"environments/env_{'0' * 26}.tar", b"x"), "belongs to no record"),
    "an agent without a definition": (append(f"agents/{'0' * 64}/folder/AGENTS.md", b"x"), "is missing"),
    "no steps": (lambda members: members.pop("steps.jsonl"), "is missing"),
    "no manifest": (lambda members: members.pop(MANIFEST), "is missing"),
    "a line that does not end": (append("sessions.jsonl", b"{}"), "does not end"),
    "a line that is no JSON": (append("sessions.jsonl", b"{\n"), "is not JSON"),
    "a line that is no object": (append("sessions.jsonl", b"[]\n"), "is not an object"),
    "a field twice": (append("sessions.jsonl", b'{"id":1,"id":2}\n'), "a field is there twice"),
    "a line nested too deep": (append("sessions.jsonl", b'{"a":' + b"[" * 9000 + b"]" * 9000 + b"}\n"), "too deep"),
    "a number of five thousand digits": (append("sessions.jsonl", b'{"a":' + b"9" * 5000 + b"}\n"), "is not JSON"),
    "a session twice": (twice("sessions.jsonl"), "its id is there twice"),
    "a turn twice": (twice("interactions.jsonl"), "its id is there twice"),
    "a step twice": (twice("steps.jsonl"), "all turns have their steps"),
}


@pytest.mark.parametrize("what", SHAPES)
async def test_an_archive_of_another_shape_is_refused(tmp_path: Path, sound: Path, what: str) -> None:
    change, says = SHAPES[what]
    error = await refused(tmp_path, rewritten(sound, change))
    assert isinstance(error, InvalidArgument)
    assert says in error.message, error.message


def of_manifest(**fields: Any) -> Callable[[Members], None]:
    def apply(members: Members) -> None:
        members[MANIFEST] = json.dumps({**json.loads(members[MANIFEST]), **fields}).encode()

    return apply


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"format": "other"}, "format: expected"),
        ({"version": 3}, "version: this interactd reads version 1 to 2, got 3"),
        ({"schema": 10_000}, "newer interactd"),
        ({"counts": {}}, "counts: expected"),
        ({"created_at": "yesterday"}, "created_at: expected a number"),
    ],
)
async def test_a_manifest_of_another_sort_is_refused(
    tmp_path: Path, sound: Path, fields: dict[str, Any], says: str
) -> None:
    error = await refused(tmp_path, rewritten(sound, of_manifest(**fields)))
    assert says in error.message
    assert error.message.startswith("manifest.json: ")


async def test_wrong_counts_are_refused(tmp_path: Path, sound: Path) -> None:
    with zipfile.ZipFile(sound) as archive:
        counts = json.loads(archive.read(MANIFEST))["counts"]
    error = await refused(tmp_path, rewritten(sound, of_manifest(counts={**counts, "steps": counts["steps"] + 1})))
    assert "steps.jsonl: has" in error.message


async def test_bytes_that_changed_are_found(tmp_path: Path, sound: Path) -> None:
    def flip(members: Members) -> None:
        members["steps.jsonl"] = members["steps.jsonl"].replace(b"alpha", b"omega")

    error = await refused(tmp_path, rewritten(sound, flip, honest=False))
    assert "steps.jsonl: is damaged: its sha256" in error.message


async def test_a_truncated_file_and_what_is_no_zip_are_refused(tmp_path: Path, sound: Path) -> None:
    whole = sound.read_bytes()
    part = tmp_path / "part.zip"
    for data in (b"", b"no zip", whole[: len(whole) // 2], whole[:-30], whole[100:]):
        part.write_bytes(data)
        assert isinstance(await refused_early(tmp_path, part), InvalidArgument)
    assert isinstance(await refused_early(tmp_path, tmp_path / "nowhere.zip"), NotFound)
    assert isinstance(await refused_early(tmp_path, tmp_path), InvalidArgument)


async def refused_early(tmp_path: Path, path: Path) -> InteractdError:
    async with home(tmp_path / "b") as it:
        with pytest.raises(InteractdError) as caught:
            await imported(it, path)
        await is_empty(it)
    return caught.value


async def test_every_byte_of_a_sound_archive_matters_or_changes_nothing(tmp_path: Path, sound: Path) -> None:
    whole = sound.read_bytes()
    async with home(tmp_path / "b") as it:
        counts = (await imported(it, sound, dry_run=True)).counts
        for place in range(0, len(whole), max(1, len(whole) // 150)):
            data = bytearray(whole)
            data[place] ^= 0x41
            broken = tmp_path / "broken.zip"
            broken.write_bytes(data)
            try:
                done = await imported(it, broken, dry_run=True)
            except InvalidArgument:
                continue
            # A byte that nobody reads: a time, a version, the local header's copy of a size.
            assert done.counts == counts
        await is_empty(it)


async def test_links_encryption_duplicates_and_other_ways_of_packing_are_refused(tmp_path: Path, sound: Path) -> None:
    def made(change: Callable[[zipfile.ZipInfo], None], name: str) -> Path:
        target = tmp_path / f"{name}.zip"
        with zipfile.ZipFile(sound) as archive, zipfile.ZipFile(target, "w") as out:
            for info in archive.infolist():
                data = archive.read(info)
                fresh = zipfile.ZipInfo(info.filename)
                if info.filename == "steps.jsonl":
                    change(fresh)
                out.writestr(fresh, data)
        return target

    def as_link(info: zipfile.ZipInfo) -> None:
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16

    def packed_otherwise(info: zipfile.ZipInfo) -> None:
        info.compress_type = zipfile.ZIP_BZIP2

    assert "is a link or device" in (await refused(tmp_path, made(as_link, "link"))).message
    assert "not ours" in (await refused(tmp_path, made(packed_otherwise, "bzip2"))).message
    double = tmp_path / "double.zip"
    double.write_bytes(sound.read_bytes())
    with zipfile.ZipFile(double, "a") as out, pytest.warns(UserWarning, match="Duplicate"):
        out.writestr("steps.jsonl", b"")
    assert "is there twice" in (await refused(tmp_path, double)).message


async def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, sound: Path) -> None:
    def swell(members: Members) -> None:
        members["steps.jsonl"] += b"\n" * (layout.RATIO_FREE + 1)

    error = await refused(tmp_path, rewritten(sound, swell))
    assert "no archive of ours packs that well" in error.message

    def claim(members: Members) -> None:
        manifest = json.loads(members[MANIFEST])
        for one in manifest["members"]:
            if one["name"] == "steps.jsonl":
                one["bytes"] = 10
        members[MANIFEST] = json.dumps(manifest).encode()

    error = await refused(tmp_path, rewritten(sound, claim, honest=False))
    assert "the manifest says 10" in error.message


async def test_members_that_share_their_bytes_are_refused(tmp_path: Path, sound: Path) -> None:
    data = bytearray(sound.read_bytes())
    with zipfile.ZipFile(sound) as archive:
        infos = {info.filename: info for info in archive.infolist()}
    # In the directory: let the second member begin inside the first.
    start = data.rindex(b"PK\x05\x06")
    at = struct.unpack_from("<I", data, start + 16)[0]
    while bytes(data[at : at + 4]) == b"PK\x01\x02":
        name, extra, comment = struct.unpack_from("<HHH", data, at + 28)
        if bytes(data[at + 46 : at + 46 + name]) == b"steps.jsonl":
            struct.pack_into("<I", data, at + 42, infos["interactions.jsonl"].header_offset + 1)
        at += 46 + name + extra + comment
    path = tmp_path / "shared.zip"
    path.write_bytes(data)
    assert "shares its bytes" in (await refused(tmp_path, path)).message


async def test_a_line_that_never_ends_is_refused(tmp_path: Path, sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from interactd.engine.archive import opening

    monkeypatch.setattr(opening, "LINE_MAX", 100_000)
    error = await refused(tmp_path, rewritten(sound, append("sessions.jsonl", b'{"a":"' + b"x" * 3_000_000)))
    assert "is longer than" in error.message


async def test_an_archive_that_does_not_fit_on_the_disk_is_refused_at_once(
    tmp_path: Path, sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from interactd.engine.archive import importing

    class Usage:
        free = 10

    def tiny(_: object) -> Usage:
        return Usage()

    monkeypatch.setattr(importing.shutil, "disk_usage", tiny)
    assert isinstance(await refused_early(tmp_path, sound), StorageFull)
