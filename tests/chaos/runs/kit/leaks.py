"""Nothing may be left of daemons that were killed once the last one has left in order."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection
from pathlib import Path

from interactd.paths import Paths
from interactd.sandbox.launchers.bubblewrap.owner import uid_for

STATE = {"daemon.json", "daemon.lock", "start.lock", "token", "log", "run"}
DATA = {
    *("agents", "artifacts", "environments", "exports", "imports", "sandbox", "spare"),
    *("interactd.db", "interactd.db-runners", "webhook-secrets.json", "webhook-secrets.lock"),
}


def left(paths: Paths, root: Path, daemons: Collection[int], nursery: int) -> list[str]:
    """Name everything that should be gone: processes, mounts, sockets, control groups, files, open interactions.

    Args:
        paths: of the home.
        root: the home's folder; TMPDIR was `tmp` in it.
        daemons: the pids that its daemons had.
        nursery: the pid of their parent, which stays.
    """
    found: list[str] = []
    nothing: set[str] = set()
    known = {paths.data: DATA, paths.data / "interactd.db-runners": nothing, root / "tmp": nothing}
    known[paths.data / "imports"] = nothing
    for level in ("*", "*/*"):
        known |= {lock.parent: STATE for lock in root.glob(f"{level}/daemon.lock")}
        known |= {run: nothing for run in root.glob(f"{level}/run")}
    known[root / "run"] = nothing
    for folder, names in known.items():
        there = {path.name for path in folder.iterdir()} if folder.is_dir() else nothing
        found += [f"file {folder / name}" for name in sorted(there - names)]
    # Immutable, or looking at it would make files.
    db = sqlite3.connect(f"file:{paths.database}?immutable=1", uri=True)
    try:
        environments = dict(db.execute("SELECT id, status FROM environments"))
        open_ = db.execute("SELECT id, status FROM interactions WHERE status IN ('queued', 'in_progress')").fetchall()
        whole = db.execute("PRAGMA integrity_check").fetchone()[0]
    finally:
        db.close()
    found += [f"interaction {id} is {status}" for id, status in open_]
    found += [f"environment {id} is {status}" for id, status in environments.items() if status == "creating"]
    found += [] if whole == "ok" else [f"the store: {whole}"]
    uids = {uid_for(id) for id in environments} if os.getuid() == 0 else set[int]()
    found += [told for pid, told in processes(root, uids).items() if pid not in (nursery, os.getpid())]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found += [f"mount {line.split()[4]}" for line in mounts if f"{root}/" in line]
    ours = tuple(f"interactd-{pid}-" for pid in daemons)
    for folder, groups, _ in os.walk("/sys/fs/cgroup"):
        found += [f"control group {folder}/{group}" for group in groups if group.startswith(ours)]
    active = {id for id, status in environments.items() if status == "active"}
    found += [f"folder {path}" for path in (paths.data / "environments").glob("*") if path.name not in active]
    found += [f"file {path}" for path in (paths.data / "artifacts").rglob(".*")]
    found += [f"file {path}" for path in (paths.data / "artifacts" / "tmp").glob("*")]
    found += [f"file {path}" for path in paths.data.glob(".*")]
    found += [f"folder {path}" for path in (paths.data / "sandbox").glob("probe-*")]
    return found


def processes(root: Path, uids: Collection[int]) -> dict[int, str]:
    """What runs with this home, or as one of these users, by pid."""
    found: dict[int, str] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environ = (entry / "environ").read_bytes()
            owner = entry.stat().st_uid
        except OSError:
            continue
        if f"{root}/" in command or f"INTERACTD_HOME={root}\0".encode() in environ or owner in uids:
            found[int(entry.name)] = f"process {entry.name} of uid {owner}: {command[:200]}"
    return found
