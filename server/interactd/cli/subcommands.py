"""Commands of commands: what `interactd environments` and `interactd credential` take."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # pyright: ignore[reportPrivateUsage]


def add(commands: Commands, name: str, text: str) -> argparse.ArgumentParser:
    """Add a command of a command, which takes --json as its parent does."""
    sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    # Without a default of its own, which would undo `interactd environments --json list`.
    sub.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON instead of text")
    return sub


def environments(commands: Commands) -> None:
    """Declare `list`, `show` and `delete`."""
    listing = add(commands, "list", "list them, last used first (the same as no command)")
    listing.add_argument("-n", "--limit", type=_positive, default=argparse.SUPPRESS)
    listing.add_argument("--cursor", default=argparse.SUPPRESS, help="go on from an earlier page")
    show = add(commands, "show", "show one: its settings and its files")
    show.add_argument("id", help="a unique prefix is enough")
    show.add_argument("--path", default=".", help="a folder in the workspace")
    show.add_argument("-r", "--recursive", action="store_true", help="what is in its folders too")
    show.add_argument("-n", "--limit", type=_positive, default=200, help="files (default 200)")
    delete = add(commands, "delete", "delete environments with all their files, and print the receipts")
    delete.add_argument("ids", nargs="+", metavar="id")
    delete.add_argument("-y", "--yes", action="store_true", help="do not ask")


def credential(commands: Commands) -> None:
    """Declare `add`, `list` and `remove`."""
    new = add(commands, "add", "keep a secret; it is asked for, or read from stdin, and never from the command line")
    new.add_argument("id", help="what environments call it")
    new.add_argument(
        "--type",
        choices=("bearer_token", "environment_variable"),
        default="bearer_token",
        help="a header that the proxy adds, or a placeholder in a variable that it replaces (default: bearer_token)",
    )
    new.add_argument(
        "--domain", action="append", default=[], metavar="HOST", help="who may see it: api.example.org, *.example.org"
    )
    new.add_argument("--header", metavar="NAME", help="for a bearer token: the header (default: Authorization)")
    new.add_argument("--prefix", metavar="WORD", help="for a bearer token: before the secret (default: Bearer)")
    new.add_argument(
        "--in",
        dest="places",
        action="append",
        default=[],
        choices=("header", "query", "body"),
        help="for a variable: where it may stand (default: header)",
    )
    new.add_argument("--replace", action="store_true", help="put it in the place of one that is there")
    add(commands, "list", "list credentials, never their secrets (the same as no command)")
    remove = add(commands, "remove", "forget a credential and its secret")
    remove.add_argument("id")


def _positive(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 1000:
        raise argparse.ArgumentTypeError("expected a number from 1 to 1000")
    return number
