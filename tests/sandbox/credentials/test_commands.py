"""The command line's part: a secret comes by prompt or stdin and is never shown."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from interactd.errors import InvalidArgument, NotFound
from interactd.paths import Paths, find
from interactd.sandbox.credentials import commands
from interactd.sandbox.credentials.store import Credentials

SECRET = "ghp_S3cretValue"


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.setenv("INTERACTD_KEYRING", "off")
    return find({"INTERACTD_HOME": str(tmp_path)}).make()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def never(text: str) -> str:
    raise AssertionError("nobody is asked")


def test_a_piped_secret_is_kept_without_its_line_end(paths: Paths) -> None:
    shown = commands.add(paths, "github", stdin=io.StringIO(SECRET + "\n"), prompt=never)
    assert shown["id"] == "github"
    assert SECRET not in str(shown)
    assert Credentials(paths).secret("github").reveal() == SECRET


def test_at_a_terminal_it_is_asked_for_unseen(paths: Paths) -> None:
    asked: list[str] = []

    def prompt(text: str) -> str:
        asked.append(text)
        return SECRET

    commands.add(paths, "github", stdin=Terminal(), prompt=prompt)
    assert asked == ["Secret for github (not shown): "]
    assert Credentials(paths).secret("github").reveal() == SECRET


def test_a_variable_with_its_domains_and_places(paths: Paths) -> None:
    commands.add(
        paths,
        "key",
        type="environment_variable",
        domains=["api.test"],
        injection_location=["query"],
        stdin=io.StringIO(SECRET),
        prompt=never,
    )
    (shown,) = commands.list_all(paths)
    assert (shown["trusted_domains"], shown["injection_location"]) == (["api.test"], ["query"])
    assert SECRET not in str(shown)
    assert SECRET not in str(commands.remove(paths, "key"))
    assert commands.list_all(paths) == []
    with pytest.raises(NotFound):
        commands.remove(paths, "key")


@pytest.mark.parametrize("given", ["", "\n", "two\nlines\n"])
def test_nothing_or_more_than_a_line_is_refused(paths: Paths, given: str) -> None:
    with pytest.raises(InvalidArgument):
        commands.add(paths, "github", stdin=io.StringIO(given), prompt=never)
    assert commands.list_all(paths) == []
