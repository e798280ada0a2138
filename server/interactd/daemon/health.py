"""What is true of the daemon from outside, also when it hangs, is absent, or its files are odd."""

from __future__ import annotations

import os
import stat
import sys
import time
from pathlib import Path
from typing import Any

from interactd._version import __version__
from interactd.daemon import lock
from interactd.errors import InteractdError
from interactd.paths import Paths
from interactd.shim import connect, record, spawn

Json = dict[str, Any]


def health(paths: Paths, *, timeout_s: float = 5.0) -> Json:
    """Look at the daemon without starting or changing anything.

    Returns:
        `state` (running, starting, leaving, hangs, stopped), `pid`, `version`, `info` (the daemon's own, when running),
        `error` (why it does not answer), and `problems`: a list of `{code, message, repair}`, empty when all is well.
    """
    found: Json = {"state": "stopped", "pid": None, "version": None, "info": None, "error": None}
    if not lock.held(paths):
        found["problems"] = _file_problems(paths)
        return found
    last = record.read(paths)
    try:
        sock, answer = connect.connect(paths, face="daemon", start=False, timeout_s=timeout_s)
        sock.close()
        found.update(state="running", pid=answer["pid"], version=answer["version"], info=answer.get("info"))
    except InteractdError as error:
        if lock.held(paths):
            pid = error.fields.get("pid") or last.get("pid")
            young = abs(time.time() - float(last.get("started_at") or 0)) < connect.START_S
            state = "leaving" if last.get("left") else "starting" if young and "ready_at" not in last else "hangs"
            found.update(state=state, pid=pid, version=last.get("version"), error=error.as_dict())
    found["problems"] = [*_state_problems(found, paths), *_file_problems(paths)]
    return found


def _state_problems(found: Json, paths: Paths) -> list[Json]:
    problems: list[Json] = []
    if found["state"] == "hangs":
        problems.append(
            {
                "code": "daemon_hangs",
                "message": f"the daemon (pid {found['pid']}) holds the lock and does not answer",
                "repair": f"`interactd stop --now` ends it; the next call starts a new one. Log: {paths.log_file}",
            }
        )
    version = found["version"]
    if version and found["state"] == "running" and version != __version__:
        older = record.version_key(version) < record.version_key(__version__)
        problems.append(
            {
                "code": "version_differs",
                "message": f"the daemon is version {version}, this command is {__version__}",
                "repair": "It makes way at the next `interactd` command that connects."
                if older
                else "Nothing to do: a newer daemon serves older clients. Update this installation when convenient.",
            }
        )
    return problems


def _file_problems(paths: Paths) -> list[Json]:
    problems: list[Json] = []
    if sys.platform == "win32":
        return problems
    wanted = {
        folder: 0o077 for folder in (paths.config, paths.data, paths.state, paths.logs, paths.cache, paths.runtime)
    }
    files = {paths.socket: 0o077, paths.token_file: 0o077, paths.log_file: 0o077, paths.database: 0o077}
    for path, mask in {**wanted, **files}.items():
        try:
            info = path.lstat()
        except OSError:
            continue  # not made yet
        if info.st_uid != os.getuid():
            problems.append(_file_problem(path, f"belongs to uid {info.st_uid}", "Remove it or give it to this user."))
        elif not stat.S_ISLNK(info.st_mode) and info.st_mode & mask:
            problems.append(
                _file_problem(path, f"can be opened by others (mode {info.st_mode & 0o777:o})", f"chmod go= '{path}'")
            )
    for folder in wanted:
        if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
            problems.append(_file_problem(folder, "cannot be written by this user", f"chmod u+rwx '{folder}'"))
    return problems


def _file_problem(path: Path, message: str, repair: str) -> Json:
    return {"code": "permissions", "message": f"{path} {message}", "repair": repair}


def last_words(paths: Paths) -> str:
    """Return the last line of the log, for reports; empty when there is none."""
    return spawn.last_words(paths).removeprefix(": ")
