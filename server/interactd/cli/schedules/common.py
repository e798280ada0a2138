"""What both command sets share: pages, several ids at once, options of the form KEY=VALUE."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from interactd import paths
from interactd.cli.client import ControlClient, RemoteError, connected
from interactd.cli.durations import span
from interactd.cli.main import print_json, report
from interactd.cli.sessions import table
from interactd.cli.words import safe
from interactd.errors import InteractdError, InvalidArgument


def pairs(option: str, given: Sequence[str] | None) -> dict[str, str] | None:
    """Read `KEY=VALUE` options; `None` when there are none. Raises: InvalidArgument."""
    if not given:
        return None
    found: dict[str, str] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise InvalidArgument(f"{option}: expected KEY=VALUE, got {item!r}")
        found[name] = value
    return found


def numbers(option: str, given: Sequence[str] | None) -> dict[str, float] | None:
    """Read `KEY=NUMBER` options. Raises: InvalidArgument."""
    found: dict[str, float] = {}
    for name, value in (pairs(option, given) or {}).items():
        try:
            found[name] = int(value) if value.isdecimal() else float(value)
        except ValueError:
            raise InvalidArgument(f"{option}: expected a number for {name}, got {value!r}") from None
    return found or None


def when(iso: str | None) -> str:
    """Say how far off a time is: `in 3h`, `12m ago`."""
    import time
    from datetime import datetime

    if not iso:
        return ""
    seconds = datetime.fromisoformat(iso).timestamp() - time.time()
    return f"in {span(seconds)}" if seconds > 0 else f"{span(-seconds)} ago"


def listing(
    args: argparse.Namespace,
    method: str,
    heads: tuple[str, ...],
    row: Callable[[dict[str, Any]], Sequence[str]],
    *,
    empty: str,
    more: str,
    **params: Any,
) -> int:
    """Print a page as a table or as JSON."""
    asked = {name: getattr(args, name) for name in ("status", "limit", "cursor") if hasattr(args, name)}
    with connected(paths.find()) as client:
        page = client.call(method, **asked, **params)
    if args.json:
        print_json(page)
        return 0
    if not page["items"]:
        print(empty)
        return 0
    table(heads, [tuple(safe(cell) for cell in row(one)) for one in page["items"]])
    if page.get("cursor"):
        print(f"more: {more} --cursor '{page['cursor']}'")
    return 0


def each(args: argparse.Namespace, do: Callable[[ControlClient, str], Any], say: Callable[[Any], str]) -> int:
    """Do something to each id; a failure of one does not keep the others, and sets the exit code."""
    done: list[Any] = []
    code = 0
    with connected(paths.find()) as client:
        for given in args.ids:
            try:
                one = do(client, given)
            except RemoteError as error:
                code = 1
                if args.json:
                    done.append({"id": given, "error": error.as_dict()})
                else:
                    report(error, as_json=False)
                continue
            if one is None:
                continue
            done.append(one)
            if not args.json:
                print(safe(say(one)))
    if args.json:
        print_json(done)
    return code


def confirmed(args: argparse.Namespace, what: str) -> bool:
    """Ask whether something is to be deleted. Raises: InteractdError: nobody is there to answer."""
    if args.yes:
        return True
    if not sys.stdin.isatty():
        raise InteractdError(
            f"{what}: deleting is final and nobody is there to confirm it",
            repair="Add --yes to delete without asking.",
        )
    return input(f"Delete {safe(what)} for good? [y/N] ").strip().lower() in {"y", "yes"}


def edited(args: argparse.Namespace, kind: str, changes: dict[str, Any], say: Callable[[Any], str]) -> int:
    """Change a trigger or a webhook, and say how it is now. Raises: InvalidArgument: nothing is to be changed."""
    if not changes:
        raise InvalidArgument(
            "nothing to change was given", repair=f"`interactd {kind}s edit --help` shows what can be."
        )
    with connected(paths.find()) as client:
        one = client.call(f"update_{kind}", changes=changes, **{f"{kind}_id": args.id})
    if args.json:
        print_json(one)
    else:
        print(say(one))
    return 0


def deleted(
    client: ControlClient, args: argparse.Namespace, kind: str, id: str, name: Callable[[dict[str, Any]], str]
) -> Any:
    """Delete a trigger or a webhook, asked about by its name; `None` when it was left."""
    if not args.yes:
        one = client.call(f"get_{kind}", **{f"{kind}_id": id})
        id = one["id"]
        if not confirmed(args, f"{id} ({name(one)})"):
            print(f"{id}: left as it is")
            return None
    return client.call(f"delete_{kind}", **{f"{kind}_id": id})


def facts(rows: dict[str, Any]) -> None:
    """Print what is set, name and value."""
    for name, value in rows.items():
        if value not in (None, "", [], {}):
            print(f"  {name:<14}{safe(str(value))}")
