"""`interactd doctor`: look at everything a session needs, say what is wrong and what to do about it."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal
from urllib.parse import quote

from rich.console import Console

from interactd import __version__, paths
from interactd.cli.client import connected
from interactd.cli.main import print_json
from interactd.errors import InteractdError

Verdict = Literal["ok", "note", "bad"]
MARKS: dict[Verdict, str] = {"ok": "[green]ok[/]  ", "note": "[yellow]note[/]", "bad": "[red]bad[/] "}
LOW_DISK = 1_000_000_000
CHECKED_BYTES = 500_000_000
"""A larger database is only opened, not read through."""


@dataclass(slots=True)
class Finding:
    """One check: what was looked at, how it is, and what to do if it is not well."""

    name: str
    verdict: Verdict
    found: str
    fix: str | None = None


def doctor(args: argparse.Namespace) -> int:
    """Print all findings; exit code 1 when something is bad."""
    findings: list[Finding] = []
    console = Console(highlight=False)
    for check in (_python, _sqlite, _folders, _database, _config, _sandbox, _daemon):
        for finding in _guarded(check):
            findings.append(finding)
            if not args.json:
                console.print(f"{MARKS[finding.verdict]}  {finding.name:<10} ", end="")
                console.print(finding.found, markup=False, soft_wrap=True)
                if finding.fix:
                    console.print(f"                  -> {finding.fix}", markup=False, style="bold", soft_wrap=True)
    if args.json:
        print_json({"version": __version__, "findings": [asdict(finding) for finding in findings]})
    return 1 if any(finding.verdict == "bad" for finding in findings) else 0


def _guarded(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    name = check.__name__.removeprefix("_")
    try:
        yield from check()
    except InteractdError as error:
        yield Finding(name, "bad", f"{error.as_dict()['code']}: {error.message}", error.repair)
    except OSError as error:
        yield Finding(name, "bad", str(error), "Check the permissions of that place, or set INTERACTD_HOME to another.")


def _python() -> Iterator[Finding]:
    yield Finding("interactd", "ok", f"{__version__}, Python {platform.python_version()} at {sys.executable}")


def _sqlite() -> Iterator[Finding]:
    connection = sqlite3.connect(":memory:")
    try:
        options = {row[0] for row in connection.execute("PRAGMA compile_options")}
        connection.execute("CREATE VIRTUAL TABLE t USING fts5(x)")
    except sqlite3.OperationalError:
        yield Finding("sqlite", "bad", f"{sqlite3.sqlite_version} has no FTS5", "Use a Python with a full SQLite.")
        return
    finally:
        connection.close()
    threads = "" if "THREADSAFE=0" not in options else ", not thread safe"
    yield Finding("sqlite", "bad" if threads else "ok", f"{sqlite3.sqlite_version} with full-text search{threads}")


def _folders() -> Iterator[Finding]:
    found = paths.find().make()
    for name, folder in (("data", found.data), ("state", found.state), ("config", found.config)):
        if not os.access(folder, os.W_OK):
            yield Finding(name, "bad", f"{folder} cannot be written", "Fix its owner, or set INTERACTD_HOME.")
        else:
            yield Finding(name, "ok", str(folder))
    free = shutil.disk_usage(found.data).free
    verdict: Verdict = "note" if free < LOW_DISK else "ok"
    fix = "Make room (`interactd data` shows what takes how much): a full disk takes no new work."
    fix = fix if verdict == "note" else None
    yield Finding("disk", verdict, f"{free / 1e9:.1f} GB free", fix)


def _database() -> Iterator[Finding]:
    """Looked at without the daemon, which does not start on a damaged one."""
    file = paths.find().database
    if not file.exists():
        yield Finding("database", "ok", "none yet")
        return
    size = file.stat().st_size
    try:
        connection = sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)
        try:
            whole = size > CHECKED_BYTES
            verdict = "ok" if whole else str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        verdict = str(error)
    if verdict == "ok":
        yield Finding("database", "ok", f"{size / 1e6:.1f} MB at {file}")
        return
    fix = (
        f"It is left as it is. `interactd stop`, move {file.name}, {file.name}-wal and {file.name}-shm elsewhere, and"
        " bring back your last export with `interactd import FILE`. Without one,"
        f' `sqlite3 {file.name} ".recover" | sqlite3 new.db` saves what is readable.'
    )
    yield Finding("database", "bad", f"{file} is damaged: {verdict[:300]}", fix)


def _config() -> Iterator[Finding]:
    from interactd import config

    where = paths.find().config_file
    config.load(paths.find())
    yield Finding("config", "ok", f"{where}" if where.exists() else f"none, defaults are used ({where})")


def _sandbox() -> Iterator[Finding]:
    from interactd.cli import sandbox

    found = sandbox.capabilities()
    chosen = sandbox.best(found)
    for each in found:
        if each.launcher == "process":
            continue  # not a sandbox, and never taken unless it is named
        if each.usable and each.isolation is not None:
            taken = ", used by default" if each is chosen else ""
            yield Finding("sandbox", "ok", f"{each.isolation.label}; {each.why}{taken}", each.fix)
        else:
            yield Finding("sandbox", "note", f"{each.launcher}: {each.why}", None if chosen else each.fix)
    if chosen is None:
        yield Finding("sandbox", "bad", "agents cannot run code here", "interactd setup installs what is missing.")


def _daemon() -> Iterator[Finding]:
    with connected(paths.find()) as client:
        status = client.call("status")
        yield Finding(
            "daemon", "ok", f"pid {status['pid']}, version {status['version']}, {status['store']['sessions']} sessions"
        )
        models = client.call("models")
        usable = [model for model in models if model["available"]]
        for model in models:
            verdict: Verdict = "ok" if model["available"] else "note"
            yield Finding("model", verdict, f"{model['id']}: {model['detail']}")
        if usable:
            yield Finding("auto", "ok", status["auto"])
        else:
            yield Finding("auto", "bad", status["auto"], "interactd setup fetches the embedded model (491 MB).")
