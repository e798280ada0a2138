"""`interactd export | import | keep | data | vacuum`: what is kept, taken elsewhere, and for how long."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from interactd import paths
from interactd.cli.client import ControlClient, connected
from interactd.cli.durations import parse_ttl, span
from interactd.cli.main import print_json
from interactd.cli.sessions import table
from interactd.cli.words import safe
from interactd.errors import InvalidArgument


def export(args: argparse.Namespace) -> int:
    """Write an archive and say where it is."""
    if args.all and args.ids:
        raise InvalidArgument("either sessions or --all, not both", field="session")
    if not args.all and not args.ids:
        raise InvalidArgument(
            "expected sessions to export, or --all for everything",
            repair="interactd sessions lists them.",
            field="session",
        )
    target = Path(args.output) if args.output else Path.cwd()
    with connected(paths.find()) as client:
        done = _followed(
            client,
            "export_data",
            session_ids=None if args.all else args.ids,
            path=str(target.expanduser().absolute()),
            with_environments=args.with_environments,
            replace=args.force,
        )
    if args.json:
        print_json(done)
        return 0
    print(f"{done['path']}  {_bytes(done['size_bytes'])}")
    print(f"  {_counts(done['counts'])}")
    print(f"  sha256 {done['sha256']}")
    _notes(done)
    return 0


def import_(args: argparse.Namespace) -> int:
    """Bring an archive in and say what came."""
    with connected(paths.find()) as client:
        done = _followed(
            client,
            "import_data",
            path=str(Path(args.file).expanduser().absolute()),
            dry_run=args.dry_run,
            as_new=args.as_new,
            restore=args.restore,
        )
    if args.json:
        print_json(done)
        return 0
    verb = "would come in" if args.dry_run else "came in"
    print(f"{verb}: {_counts(done['counts']) or 'nothing'}")
    if done["skipped"]:
        print(f"  {done['skipped']} sessions are here already, and the same")
    for old, new in done["mapping"].items():
        print(f"  {old} -> {new}")
    _notes(done)
    return 0


def keep(args: argparse.Namespace) -> int:
    """Give sessions another time to live."""
    ttl = 0.0 if args.ttl is None else parse_ttl(args.ttl)
    kept: list[dict[str, Any]] = []
    with connected(paths.find()) as client:
        for id in args.ids:
            kept.append(client.call("keep_session", session_id=id, ttl_s=ttl))
            if not args.json:
                until = kept[-1].get("expires_at")
                when = f"until {until[:16].replace('T', ' ')} UTC" if until else "until it is deleted"
                print(f"{kept[-1]['id']}: kept {when}")
    if args.json:
        print_json(kept)
    return 0


def data(args: argparse.Namespace) -> int:
    """Show what takes how much, and what goes when."""
    with connected(paths.find()) as client:
        found = client.call("storage")
    if args.json:
        print_json(found)
        return 0
    database, files = found["database"], found["files"]
    unused = f"{_bytes(database['free_bytes'])} of it unused" if database["free_bytes"] else ""
    rows = [("database", _bytes(database["bytes"] + database["wal_bytes"]), unused)]
    rows += [(name, _bytes(size), _kept(found["retention"].get(f"{name}_s", ...))) for name, size in files.items()]
    rows.append(("spare room", _bytes(database["spare_bytes"]), "kept free to finish what runs on a full disk"))
    rows.append(("total", _bytes(found["total_bytes"]), f"{_bytes(database['disk_free_bytes'])} free on the disk"))
    table(("what", "size", "note"), rows)
    print()
    heads = ("", "overdue", "within a day", "a week", "later", "never")
    expiring = found["expiring"]
    spans = [(kind, *(str(n) for n in expiring[kind].values())) for kind in ("sessions", "environments")]
    table(heads, [("goes", *heads[1:]), *spans] if not sys.stdout.isatty() else spans)
    for one in expiring["next"]:
        when = datetime.fromtimestamp(one["expires_at"], UTC).strftime("%Y-%m-%d %H:%M")
        print(f"  {when} UTC  {one['session_id']}  {safe(one['title'] or '')}")
    if found["clock_doubted"]:
        print("The clock jumped ahead: nothing is deleted for now (docs/data.md).")
    if database["pending"]:
        print("The last delete is still being cleared from the database file; `interactd vacuum` does it now.")
    return 0


def vacuum(args: argparse.Namespace) -> int:
    """Rewrite the database without its unused parts."""
    with connected(paths.find()) as client:
        done = client.call("vacuum")
    if args.json:
        print_json(done)
    else:
        before, after = _bytes(done["before_bytes"]), _bytes(done["after_bytes"])
        print(f"database: {before} before, {after} now ({done['seconds']:.1f} s)")
    return 0


def _followed(client: ControlClient, method: str, **params: Any) -> dict[str, Any]:
    """Call, and show how far it is on a terminal. Ctrl-C hangs up, which ends the work."""
    shown = sys.stderr.isatty()
    result: dict[str, Any] = {}
    for is_result, message in client.stream(method, **params):
        if is_result:
            result = message
        elif shown:
            print(f"\r\x1b[K{message['what']}: {message['count']:,}", end="", file=sys.stderr, flush=True)
    if shown:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    return result


_NAMED = {"requests": "network logs", "ledger": "lines of the ledger"}


def _counts(counts: dict[str, int]) -> str:
    named = {_NAMED.get(name, name): count for name, count in counts.items() if count and name != "spent"}
    return ", ".join(f"{count:,} {name}" for name, count in named.items())


def _notes(done: dict[str, Any]) -> None:
    for note in done["notes"]:
        print(f"  note: {safe(note)}")


def _kept(seconds: Any) -> str:
    if seconds is ...:
        return ""
    return "kept until deleted" if seconds is None else f"kept {span(seconds)}"


def _bytes(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count} B"
