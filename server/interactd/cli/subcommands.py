"""Commands of commands: what `interactd environments` and `interactd credential` take."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Add = Callable[..., argparse.ArgumentParser]
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # pyright: ignore[reportPrivateUsage]


def add(commands: Commands, name: str, text: str) -> argparse.ArgumentParser:
    """Add a command of a command, which takes --json as its parent does."""
    sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    # Without a default of its own, which would undo `interactd environments --json list`.
    sub.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON instead of text")
    return sub


def money(add: Callable[..., argparse.ArgumentParser], usage: object, budget: object, prices: object) -> None:
    """Declare `usage`, `budget` and `prices`."""
    spent = add("usage", "show what was spent: cost, tokens, calls, working time", usage)
    spent.add_argument("--by", choices=("day", "model", "agent", "session"), default="day", help="default: day")
    spent.add_argument("--since", metavar="TIME", help="only the last 90m, 24h, 7d ... (default: all)")
    spent.add_argument("-n", "--limit", type=_positive, default=50, help="lines (default 50)")
    limit = add("budget", "show or set what a session's turns together may cost", budget)
    limit.add_argument("id", help="a unique prefix is enough")
    limit.add_argument("amount", nargs="?", metavar="AMOUNT", help="'$2', '50k tokens', JSON, or none")
    cost = add("prices", "show what models cost, from where that is known, and as of when", prices)
    cost.add_argument("models", nargs="+", metavar="MODEL", help="provider/name, or a bare name")


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


def waiting(add_command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """Declare `inbox`, `approvals`, `respond` and `cancel`."""
    inbox = add_command("inbox", "show what waits for you: results that nobody read, and questions")
    inbox.add_argument("-s", "--session", metavar="ID", help="only of this session")
    inbox.add_argument("-n", "--limit", type=_positive, default=20)
    approvals = add_command("approvals", "list what agents want to do and may not do unasked")
    approvals.add_argument("-s", "--session", metavar="ID", help="only of this session")
    approvals.add_argument("-n", "--limit", type=_positive, default=100)
    respond = add_command("respond", "answer what an interaction waits for; it goes on when nothing is missing")
    respond.add_argument("id", help="the interaction (a unique prefix is enough)")
    what = respond.add_mutually_exclusive_group(required=True)
    what.add_argument("--allow", action="store_true", help="let the agent do it")
    what.add_argument("--deny", action="store_true", help="do not; the agent is told, and goes on without")
    what.add_argument("--result", metavar="TEXT", help="the result of a function, as text or JSON; - reads stdin")
    respond.add_argument("--call", metavar="CALL", help="only this call (default: every question)")
    respond.add_argument("--reason", metavar="TEXT", help="why; the agent is told")
    respond.add_argument(
        "--scope",
        choices=("call", "run", "session"),
        default="call",
        help="also for later calls of the same tool, in this run or this session (default: call)",
    )
    respond.add_argument("--wait", action="store_true", help="wait until it has ended or asks again")
    respond.add_argument("--idempotency-key", metavar="KEY", help="the same key answers once")
    cancel = add_command("cancel", "stop interactions that run or wait; what they made is kept")
    cancel.add_argument("ids", nargs="*", metavar="id", help="interactions (a unique prefix is enough)")
    cancel.add_argument("--all", action="store_true", help="everything that runs or waits")


def data(add: Add) -> None:
    """Declare `export`, `import`, `keep`, `data` and `vacuum` with the command line's own `add`."""
    export = add("export", "write sessions with all that belongs to them into one zip", _export)
    export.add_argument("ids", nargs="*", metavar="SESSION", help="a unique prefix of its id is enough")
    export.add_argument("--all", action="store_true", help="everything: all sessions, environments and triggers")
    export.add_argument("-o", "--output", metavar="FILE", help="the file, or a folder for it (default: this folder)")
    export.add_argument("--with-environments", action="store_true", help="the files of agents' workspaces too")
    export.add_argument("--force", action="store_true", help="write over a file that is there")
    bring = add("import", "bring in what export wrote: whole, or not at all", _import)
    bring.add_argument("file", metavar="FILE")
    bring.add_argument("--dry-run", action="store_true", help="check everything and say what would come; keep nothing")
    bring.add_argument("--as-new", action="store_true", help="give everything new ids")
    bring.add_argument("--restore", action="store_true", help="bring back what was deleted or had expired here")
    keep = add("keep", "keep sessions for ever, or for another time from now on", _keep)
    keep.add_argument("ids", nargs="+", metavar="SESSION")
    keep.add_argument("--ttl", metavar="TIME", help="90m, 24h, 7d ... (default: forever)")
    add("data", "show what takes how much room, and what goes when", _data)
    add("vacuum", "rewrite the database without its unused parts", _vacuum)


def _export(args: argparse.Namespace) -> int:
    from interactd.cli.data import export

    return export(args)


def _import(args: argparse.Namespace) -> int:
    from interactd.cli.data import import_

    return import_(args)


def _keep(args: argparse.Namespace) -> int:
    from interactd.cli.data import keep

    return keep(args)


def _data(args: argparse.Namespace) -> int:
    from interactd.cli.data import data

    return data(args)


def _vacuum(args: argparse.Namespace) -> int:
    from interactd.cli.data import vacuum

    return vacuum(args)


def _positive(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 1000:
        raise argparse.ArgumentTypeError("expected a number from 1 to 1000")
    return number
