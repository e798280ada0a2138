"""What `interactd credential add|list|remove` does. A secret comes from a prompt or from stdin, never from argv,
where every process of the machine could read it."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable, Sequence
from typing import TextIO

from interactd.errors import InvalidArgument
from interactd.nouns import Json
from interactd.paths import Paths
from interactd.sandbox.credentials.kinds import MAX_SECRET, check_id
from interactd.sandbox.credentials.store import Credentials


def add(
    paths: Paths,
    credential_id: str,
    *,
    type: str = "bearer_token",
    domains: Sequence[str] = (),
    header_name: str | None = None,
    prefix: str | None = None,
    injection_location: Sequence[str] = (),
    replacing: bool = False,
    stdin: TextIO | None = None,
    prompt: Callable[[str], str] = getpass.getpass,
) -> Json:
    """Ask for the secret and keep the credential; returns its description, without the secret.

    Args:
        type: `bearer_token` or `environment_variable`.
        domains: who may see it; a bearer token may do without (then the allow-list's entry says it).
        header_name, prefix: of a bearer token; None is `Authorization` and `Bearer`. An empty prefix is none.
        injection_location: of an environment variable: header, query, body.
        stdin: where the secret comes from when it is no terminal: its one line.

    Raises:
        InvalidArgument, Conflict, StorageError: as `Credentials.add`.
    """
    check_id(credential_id)
    body: Json = {"id": credential_id, "type": type}
    if domains:
        body["trusted_domains"] = list(domains)
    if header_name is not None:
        body["header_name"] = header_name
    if prefix is not None:
        body["prefix"] = prefix
    if injection_location:
        body["injection_location"] = list(injection_location)
    name = "value" if type == "environment_variable" else "token"
    body[name] = read_secret(credential_id, stdin or sys.stdin, prompt)
    return Credentials(paths).add(body, replacing=replacing).as_dict()


def list_all(paths: Paths) -> list[Json]:
    """Return every credential's description: id, type, domains, times, where it is kept; never a value."""
    return [credential.as_dict() for credential in Credentials(paths).list()]


def remove(paths: Paths, credential_id: str) -> Json:
    """Delete a credential and its secret; returns what it was. Raises: NotFound, StorageError."""
    return Credentials(paths).remove(credential_id).as_dict()


def read_secret(credential_id: str, stdin: TextIO, prompt: Callable[[str], str]) -> str:
    """Return the secret: typed unseen at a terminal, else the one line that stdin holds.

    Raises:
        InvalidArgument: nothing came, or more than one line.
    """
    if stdin.isatty():
        return prompt(f"Secret for {credential_id} (not shown): ").strip()
    given = stdin.read(MAX_SECRET + 2).strip()
    if not given:
        raise InvalidArgument(
            "the secret is missing: stdin is empty",
            repair=f"Pipe it in, e.g. `interactd credential add {credential_id} < file`, or run it in a terminal.",
            field="secret",
        )
    return given
