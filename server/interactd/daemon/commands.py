"""`interactd daemon`, `stop` and `status`: plain printing, and the truth also when the daemon hangs or is absent.

Exit codes: start and stop 0 when it is so, 1 when it could not be made so; status 0 running, starting or
leaving, 3 stopped, 4 hanging.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from interactd.daemon import lock
from interactd.daemon.health import health
from interactd.errors import InteractdError
from interactd.paths import Paths
from interactd.shim import connect, record

Json = dict[str, Any]

EXIT = {"running": 0, "starting": 0, "leaving": 0, "stopped": 3, "hangs": 4}
STOP_S = 20.0
KILL_S = 3.0
ENGINE_S = 10.0


def start(paths: Paths) -> int:
    """Make sure that a daemon runs, and print its pid."""
    try:
        sock, answer = connect.connect(paths, face="daemon")
    except InteractdError as error:
        print(f"interactd: {error}. {error.repair or ''}".rstrip(), file=sys.stderr)
        return 1
    sock.close()
    print(f"The daemon runs: pid {answer['pid']}, version {answer['version']}.")
    return 0


def stop(paths: Paths, *, now: bool = False, as_json: bool = False) -> int:
    """Stop the daemon and wait until it is gone.

    Args:
        paths: where it is.
        now: do not wait for running steps, and kill it when it does not answer.
        as_json: print `{"stopped", "pid", "killed", "message"}` instead of a sentence.
    """
    if not lock.held(paths):
        return _told(as_json, stopped=True, pid=None, message="No daemon is running.")
    pid: int | None = None
    hosts = 0
    try:
        pid, hosts = _ask_to_stop(paths, now)
        asked = True
    except InteractdError as error:
        asked = False
        pid = error.fields.get("pid") or health(paths, timeout_s=1.0)["pid"]
    if asked and _gone(paths, pid, KILL_S if now else STOP_S):
        message = f"The daemon (pid {pid}) has left."
        if hosts:
            message += f" {hosts} connected host(s) start it again with their next call."
        return _told(as_json, stopped=True, pid=pid, message=message)
    if not now:
        message = f"The daemon (pid {pid}) does not " + ("leave" if asked else "answer")
        message += ". `interactd stop --now` kills it; what it had accepted goes on with the next daemon."
        return _told(as_json, stopped=False, pid=pid, message=message)
    if pid is not None and not _gone(paths, pid, 0.0):
        try:
            os.kill(pid, signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
        except ProcessLookupError:
            return _told(as_json, stopped=True, pid=pid, message=f"The daemon (pid {pid}) has left.")
        except OSError as error:
            return _told(as_json, stopped=False, pid=pid, message=f"Process {pid} could not be killed: {error}.")
        if _gone(paths, pid, KILL_S):
            return _told(as_json, stopped=True, pid=pid, killed=True, message=f"The daemon (pid {pid}) was killed.")
    stopped = _gone(paths, pid, 0.0)
    message = "The daemon has left." if stopped else f"Some process still holds {paths.lock}."
    return _told(as_json, stopped=stopped, pid=pid, message=message)


def status(paths: Paths, *, as_json: bool = False) -> int:
    """Print what the daemon is doing, or that there is none. Never starts one."""
    found = health(paths)
    if found["state"] == "running":
        try:
            found["engine"] = _control(paths, "status")
        except (InteractdError, OSError) as error:
            found["problems"].append({"code": "no_engine_status", "message": str(error), "repair": "Try again."})
    found["paths"] = {
        name: str(getattr(paths, name)) for name in ("config_file", "database", "log_file", "socket", "weights")
    }
    found["sizes"] = {
        "database": _size(paths.data, "interactd.db*"),
        "logs": _size(paths.logs, "daemon.log*"),
        "weights": _size(paths.weights, "*"),
    }
    if as_json:
        print(json.dumps(found, indent=2, default=str))
    else:
        print("\n".join(_lines(found)))
    return EXIT[found["state"]]


def _lines(found: Json) -> list[str]:
    info: Json = found["info"] or {}
    engine: Json = found.get("engine") or {}
    head = {
        "running": f"running, pid {found['pid']}, version {found['version']}, up {_span(info.get('uptime_s', 0))}",
        "starting": f"starting, pid {found['pid']}",
        "leaving": f"leaving, pid {found['pid']}: running steps are being finished",
        "hangs": f"HANGS: pid {found['pid']} holds the lock and does not answer",
        "stopped": "not running; it starts by itself with the next command or host",
    }[found["state"]]
    rows = [("daemon", head)]
    for each in info.get("connections", []):
        if each.get("face") == "control" and each.get("pid") == os.getpid():
            continue
        who = each.get("client") or ("a command" if each.get("face") == "control" else "a host")
        since = _span(time.time() - float(each.get("since", 0)))
        rows.append(("connected", f"{who}, pid {each.get('pid')}, {since}, {each.get('cwd') or '-'}"))
    if info and not any(name == "connected" for name, _ in rows):
        rows.append(("connected", "nobody"))
    if engine:
        rows.append(("turns", ", ".join(f"{engine[n]} {w}" for n, w in _COUNTS if engine.get(n) is not None)))
        if schedules := engine.get("schedules"):
            rows += _schedules(schedules)
        rows += [("slots", text) for text in _slots(engine.get("dispatch") or {})]
        if engine.get("auto"):
            auto = engine["auto"]
            rows.append(("auto model", auto if isinstance(auto, str) else json.dumps(auto)))
    for name, size in found["sizes"].items():
        if size:
            rows.append((name, _bytes(size)))
    for name, path in found["paths"].items():
        rows.append((name.removesuffix("_file"), path))
    out = [f"{name:<11} {text}" for name, text in rows]
    for problem in found["problems"]:
        out.append(f"! {problem['message']}. {problem['repair']}")
    return out


def _schedules(found: Json) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    if found.get("triggers"):
        said = f"{found['triggers']}, {found['active']} active"
        if found.get("next_run_at"):
            said += f", next in {_span(found['next_run_at'] - time.time())}"
        rows.append(("triggers", said))
    for each in found.get("in_error", []):
        name = f" ({each['display_name']})" if each.get("display_name") else ""
        rows.append(("", f"! {each['id']}{name} was stopped by failures"))
    if found.get("webhooks"):
        rows.append(("webhooks", f"{found['webhooks']}, {found['undelivered']} deliveries waiting"))
    for each in found.get("failing", []):
        rows.append(("", f"! {each['id']} fails: {each.get('last_error') or each['status']}"))
    return rows


def _slots(dispatch: Json) -> list[str]:
    """Who waits for whom; nothing when nobody waits."""
    if not dispatch.get("waiting"):
        return []
    found = [f"{dispatch['running']} of {dispatch['max_running']} taken, {dispatch['delayed']} waiting for a time"]
    for name, of in dispatch.get("providers", {}).items():
        if of["waiting"]:
            most = f" of {of['max_running']}" if "max_running" in of else ""
            found.append(f"{name}: {of['running']}{most} running, {of['waiting']} waiting")
    return found


_COUNTS = (
    ("busy", "running or queued"),
    ("queued", "queued"),
    ("unread", "unread"),
    ("waiting", "waiting for an answer"),
)


def _ask_to_stop(paths: Paths, now: bool) -> tuple[int, int]:
    """Ask, and return the daemon's pid and how many hosts are connected."""
    sock, answer = connect.connect(paths, face="control", start=False, timeout_s=KILL_S if now else ENGINE_S)
    with sock:
        info = _call(sock, "status", {}) if not now else {}
        _call(sock, "stop", {"now": now})
    connections: list[Json] = info.get("connections", [])
    return answer["pid"], sum(1 for each in connections if each.get("face") == "mcp")


def _control(paths: Paths, method: str, **params: Any) -> Json:
    sock, _ = connect.connect(paths, face="control", start=False, timeout_s=ENGINE_S)
    with sock:
        return _call(sock, method, params)


def _call(sock: socket.socket, method: str, params: Json) -> Json:
    sock.settimeout(ENGINE_S)
    sock.sendall(json.dumps({"id": 1, "method": method, "params": params}).encode("ascii") + b"\n")
    with sock.makefile("rb") as lines:
        for line in lines:
            message: Json = json.loads(line)
            if "error" in message:
                raise InteractdError(str(message["error"].get("message")), repair=message["error"].get("repair"))
            if "result" in message:
                return message["result"]
    # A daemon that was told to stop at once may be gone before its answer is.
    return {}


def _gone(paths: Paths, pid: int | None, limit_s: float) -> bool:
    """Wait until the daemon `pid` has gone. A host that waits for an answer may have started the next one already."""
    end = time.monotonic() + limit_s
    while lock.held(paths):
        if pid is not None and record.read(paths).get("pid") not in (None, pid):
            return True
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def _told(as_json: bool, *, stopped: bool, pid: int | None, message: str, killed: bool = False) -> int:
    if as_json:
        print(json.dumps({"stopped": stopped, "pid": pid, "killed": killed, "message": message}))
    else:
        print(message, file=sys.stdout if stopped else sys.stderr)
    return 0 if stopped else 1


def _size(folder: Path, pattern: str) -> int:
    try:
        return sum(each.stat().st_size for each in folder.glob(pattern) if each.is_file())
    except OSError:
        return 0


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _span(seconds: float) -> str:
    whole = int(max(seconds, 0))
    days, hours, minutes = whole // 86400, whole % 86400 // 3600, whole % 3600 // 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"
