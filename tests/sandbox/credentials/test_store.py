"""Credentials are kept so that only this user can read them, and shown without their secrets."""

from __future__ import annotations

import json
import pickle
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from interactd.errors import Conflict, InvalidArgument, NotFound, StorageError
from interactd.paths import Paths, find
from interactd.sandbox.credentials.kinds import Secret
from interactd.sandbox.credentials.store import Credentials
from interactd.sandbox.credentials.vaults import Keyring, VaultFailed, find_keyring

SECRET = "ghp_S3cretValue"
BEARER = {"id": "github", "type": "bearer_token", "token": SECRET}
VARIABLE = {
    "id": "key",
    "type": "environment_variable",
    "value": SECRET,
    "trusted_domains": ["*.api.test", "b.test:8443"],
}


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return find({"INTERACTD_HOME": str(tmp_path)}).make()


class Memory:
    """A keyring backend that keeps what it is given."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, str], str] = {}
        self.broken = False

    def get_password(self, service: str, name: str) -> str | None:
        self._check("")
        return self.held.get((service, name))

    def set_password(self, service: str, name: str, value: str) -> None:
        self._check(value)
        self.held[service, name] = value

    def delete_password(self, service: str, name: str) -> None:
        self._check("")
        del self.held[service, name]

    def _check(self, value: str) -> None:
        if self.broken:
            raise RuntimeError(f"could not keep {value}")


def in_file(paths: Paths) -> Credentials:
    return Credentials(paths, keeping="file")


def test_what_was_added_is_listed_without_its_secret_and_read_with_it(paths: Paths) -> None:
    keep = in_file(paths)
    keep.add(BEARER)
    keep.add(VARIABLE)
    bearer, variable = (credential.as_dict() for credential in in_file(paths).list())
    assert (bearer["id"], bearer["type"], bearer["header_name"], bearer["prefix"]) == (
        "github",
        "bearer_token",
        "Authorization",
        "Bearer",
    )
    assert variable["trusted_domains"] == ["*.api.test", "b.test:8443"]
    assert variable["injection_location"] == ["header"]
    assert bearer["kept_in"] == "file"
    assert bearer["created_at"] == bearer["updated_at"] > 1e9
    assert SECRET not in str([bearer, variable]) + repr(keep.list())
    assert in_file(paths).secret("github").reveal() == SECRET


def test_the_file_is_this_users_alone_also_when_somebody_widened_it(paths: Paths) -> None:
    keep = in_file(paths)
    keep.add(BEARER)
    file = paths.data / "credentials.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)
    keep.list()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in paths.data.iterdir() if path.name.endswith(".part")] == []


def test_removing_takes_the_secret_from_the_disk(paths: Paths) -> None:
    keep = in_file(paths)
    keep.add(BEARER)
    assert keep.remove("github").id == "github"
    assert SECRET not in (paths.data / "credentials.json").read_text()
    with pytest.raises(NotFound) as caught:
        keep.secret("github")
    assert "interactd credential add github" in (caught.value.repair or "")
    with pytest.raises(NotFound):
        keep.remove("github")


def test_an_id_is_replaced_only_on_purpose_and_keeps_its_type_and_birth(paths: Paths) -> None:
    keep = in_file(paths)
    first = keep.add(BEARER)
    with pytest.raises(Conflict):
        keep.add({**BEARER, "token": "another-one"})
    assert keep.secret("github").reveal() == SECRET
    second = keep.add({**BEARER, "token": "another-one"}, replacing=True)
    assert keep.secret("github").reveal() == "another-one"
    assert second.created_at == first.created_at <= second.updated_at
    with pytest.raises(Conflict):
        keep.add({**VARIABLE, "id": "github"}, replacing=True)


def test_an_id_is_made_when_none_is_given(paths: Paths) -> None:
    made = in_file(paths).add({"type": "bearer_token", "token": SECRET})
    assert len(made.id) == 36


def test_a_real_keyring_holds_the_secret_and_the_file_does_not(paths: Paths) -> None:
    backend = Memory()
    keep = Credentials(paths, probe=lambda: Keyring(backend))
    assert keep.add(BEARER).kept_in == "keyring"
    assert SECRET not in (paths.data / "credentials.json").read_text()
    assert keep.secret("github").reveal() == SECRET
    keep.remove("github")
    assert backend.held == {}


def test_a_keyring_that_fails_leaves_the_secret_in_the_file_and_says_so(paths: Paths) -> None:
    backend = Memory()
    backend.broken = True
    keep = Credentials(paths, probe=lambda: Keyring(backend))
    assert keep.add(BEARER).kept_in == "file"
    assert keep.secret("github").reveal() == SECRET


def test_a_keyring_that_is_locked_later_is_an_error_without_the_secret(paths: Paths) -> None:
    backend = Memory()
    Credentials(paths, probe=lambda: Keyring(backend)).add(BEARER)
    backend.broken = True
    with pytest.raises(StorageError) as caught:
        Credentials(paths, probe=lambda: Keyring(backend)).secret("github")
    assert SECRET not in str(caught.value.as_dict())
    with pytest.raises(StorageError):
        Credentials(paths, probe=lambda: None).secret("github")


def test_moving_from_keyring_to_file_forgets_the_old_secret(paths: Paths) -> None:
    backend = Memory()
    Credentials(paths, probe=lambda: Keyring(backend)).add(BEARER)
    other = Credentials(paths, probe=lambda: Keyring(backend))
    assert other.add({**BEARER, "token": "another-one"}, replacing=True).kept_in == "keyring"
    assert set(backend.held.values()) == {"another-one"}


def test_a_failing_keyring_never_quotes_the_value() -> None:
    backend = Memory()
    backend.broken = True
    with pytest.raises(VaultFailed) as caught:
        Keyring(backend).put("x", SECRET)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_only_backends_that_encrypt_count_as_a_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    def keyring_with(module: str) -> Any:
        backend = type("Backend", (Memory,), {"__module__": module})()
        found = types.ModuleType("keyring")
        found.get_keyring = lambda: backend  # type: ignore[attr-defined]
        return found

    for module, real in (
        ("keyring.backends.SecretService", True),
        ("keyrings.alt.file", False),
        ("keyring.backends.fail", False),
        ("keyring.backends.null", False),
    ):
        monkeypatch.setitem(sys.modules, "keyring", keyring_with(module))
        assert (find_keyring() is not None) is real, module


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "type"),
        ({"type": "oauth2"}, "type"),
        ({**BEARER, "id": "a b"}, "id"),
        ({**BEARER, "id": "../x"}, "id"),
        ({**BEARER, "id": 5}, "id"),
        ({"type": "bearer_token"}, "token"),
        ({**BEARER, "token": ""}, "token"),
        ({**BEARER, "token": 5}, "token"),
        ({**BEARER, "token": SECRET + "\r\nX: y"}, "token"),
        ({**BEARER, "token": SECRET + "é"}, "token"),
        ({**BEARER, "token": " " + SECRET}, "token"),
        ({**BEARER, "token": SECRET * 10_000}, "token"),
        ({**BEARER, "header_name": "X Y"}, "header_name"),
        ({**BEARER, "header_name": "Host"}, "header_name"),
        ({**BEARER, "header_name": "Content-Length"}, "header_name"),
        ({**BEARER, "prefix": "a\nb"}, "prefix"),
        ({**BEARER, "value": SECRET}, "value"),
        ({**VARIABLE, "trusted_domains": []}, "trusted_domains"),
        ({**VARIABLE, "trusted_domains": ["*"]}, "trusted_domains[0]"),
        ({**VARIABLE, "trusted_domains": ["a.test", "a b"]}, "trusted_domains[1]"),
        ({**VARIABLE, "trusted_domains": 5}, "trusted_domains"),
        ({**VARIABLE, "injection_location": "cookie"}, "injection_location"),
        ({**VARIABLE, "injection_location": []}, "injection_location"),
        ({**VARIABLE, "extra": 1}, "extra"),
    ],
)
def test_a_wrong_field_is_named_and_the_secret_is_not(paths: Paths, body: Any, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        in_file(paths).add(body)
    assert caught.value.fields["field"] == field
    assert SECRET not in str(caught.value.as_dict())
    assert in_file(paths).list() == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 2}', '{"version": 1, "credentials": [{"id": "x"}]}'])
def test_a_damaged_file_is_an_error_that_does_not_quote_it_and_is_not_overwritten(paths: Paths, content: str) -> None:
    file = paths.data / "credentials.json"
    file.write_text(content + (f"  {SECRET}" if content == "{" else ""))
    before = file.read_text()
    with pytest.raises(StorageError) as caught:
        in_file(paths).list()
    assert SECRET not in str(caught.value.as_dict())
    assert file.read_text() == before


def test_many_writers_at_once_lose_nothing(paths: Paths) -> None:
    def add(number: int) -> None:
        in_file(paths).add({**BEARER, "id": f"c{number}"})

    threads = [threading.Thread(target=add, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(in_file(paths).list()) == 12
    assert json.loads((paths.data / "credentials.json").read_text())["version"] == 1


def test_a_secret_does_not_show_itself() -> None:
    secret = Secret(SECRET)
    assert SECRET not in f"{secret} {secret!r} {[secret]}" + str(dir(secret))
    with pytest.raises(TypeError):
        pickle.dumps(secret)
