"""`interactd daemon install | uninstall`: have the system start the daemon at login, for schedules that must run.

Linux: a systemd user unit. macOS: a launchd agent. Elsewhere it is said what to do instead.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from interactd.paths import Paths
from interactd.shim import spawn

UNIT = "interactd.service"
AGENT = "org.interactd.daemon"
TIMEOUT_S = 20.0
_CARRIED = (
    "INTERACTD_HOME",
    "INTERACTD_TRANSPORT",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_STATE_HOME",
    "XDG_CACHE_HOME",
)

Run = Callable[[Sequence[str]], str | None]
"""Runs a command; returns what went wrong, `None` when nothing did."""


def unit(paths: Paths, command: Sequence[str], env: Mapping[str, str]) -> str:
    """Return the text of the systemd user unit.

    Args:
        paths: where the daemon's own environment file may be.
        command: what starts a daemon, without its last arguments.
        env: of whoever installs it; where interactd's folders are is taken from it.
    """
    start = " ".join(_quoted(word) for word in (*command, "--foreground", "--stay"))
    carried = "".join(f"Environment={_quoted(f'{name}={env[name]}')}\n" for name in _CARRIED if env.get(name))
    return (
        "[Unit]\n"
        "Description=interactd: sessions, agents and schedules of this user\n"
        "After=network-online.target\n"
        "\n"
        "[Service]\n"
        f"ExecStart={start}\n"
        f"{carried}"
        "# Keys for runs that no host brings a key for: NAME=value lines, in a file that only you may read.\n"
        f"EnvironmentFile=-{str(paths.config / 'daemon.env').replace('%', '%%')}\n"
        "# A deliberate stop (interactd stop, a newer version) ends with 0 and stays stopped until the next call.\n"
        "Restart=on-failure\n"
        "RestartSec=5\n"
        "TimeoutStopSec=30\n"
        "UMask=0077\n"
        "\n"
        "[Install]\n"
        "WantedBy=default.target\n"
    )


def plist(paths: Paths, command: Sequence[str], env: Mapping[str, str]) -> str:
    """Return the text of the launchd agent; arguments as `unit`."""
    words = "".join(f"    <string>{escape(word)}</string>\n" for word in (*command, "--foreground", "--stay"))
    carried = "".join(
        f"    <key>{name}</key>\n    <string>{escape(env[name])}</string>\n" for name in _CARRIED if env.get(name)
    )
    variables = f"  <key>EnvironmentVariables</key>\n  <dict>\n{carried}  </dict>\n" if carried else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">\n'
        '<plist version="1.0">\n<dict>\n'
        f"  <key>Label</key>\n  <string>{AGENT}</string>\n"
        f"  <key>ProgramArguments</key>\n  <array>\n{words}  </array>\n"
        f"{variables}"
        "  <key>RunAtLoad</key>\n  <true/>\n"
        "  <key>KeepAlive</key>\n  <dict>\n    <key>SuccessfulExit</key>\n    <false/>\n  </dict>\n"
        "  <key>Umask</key>\n  <integer>63</integer>\n"
        f"  <key>StandardErrorPath</key>\n  <string>{escape(str(paths.logs / 'launchd.log'))}</string>\n"
        "</dict>\n</plist>\n"
    )


def _quoted(word: str) -> str:
    inner = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{inner}"' if inner != word or not word or any(c in word for c in " \t'") else word


def place(platform: str, env: Mapping[str, str]) -> Path | None:
    """Return where the system looks for it; `None` where there is no such place."""
    home = Path(env.get("HOME") or Path.home())
    if platform == "darwin":
        return home / "Library" / "LaunchAgents" / f"{AGENT}.plist"
    if platform.startswith("linux"):
        config = env.get("XDG_CONFIG_HOME", "").strip() or str(home / ".config")
        return Path(config) / "systemd" / "user" / UNIT
    return None


def main(
    words: Sequence[str],
    paths: Paths,
    *,
    platform: str = sys.platform,
    env: Mapping[str, str] = os.environ,
    run: Run | None = None,
) -> int:
    """Run `interactd daemon install|uninstall [--json]`.

    Returns:
        The exit code: 0 done, 1 not (or only written and not started; the message says what to run), 2 wrong usage.
    """
    as_json = "--json" in words
    rest = [word for word in words if word != "--json"]
    if len(rest) != 1:
        print(f"interactd daemon {rest[0]}: unknown argument {rest[1]!r}", file=sys.stderr)
        return 2
    doing = rest[0]
    file = place(platform, env)
    if file is None:
        text = "This system has no service manager that interactd knows"
        hint = 'On Windows: schtasks /create /tn interactd /sc onlogon /tr "interactd daemon --stay".'
        return _said(as_json, False, file, f"{text}. {hint}")
    work = install if doing == "install" else uninstall
    return work(paths, file, platform=platform, env=env, run=run or _run, as_json=as_json)


def install(paths: Paths, file: Path, *, platform: str, env: Mapping[str, str], run: Run, as_json: bool) -> int:
    """Write the file and have the system start the daemon now and at every login."""
    mac = platform == "darwin"
    text = (plist if mac else unit)(paths, spawn.own_command(), env)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        return _said(as_json, False, file, f"{file} cannot be written: {error.strerror}")
    if mac:
        run(["launchctl", "bootout", f"gui/{_uid()}/{AGENT}"])
        steps = [["launchctl", "bootstrap", f"gui/{_uid()}", str(file)]]
    else:
        steps = [["systemctl", "--user", "daemon-reload"], ["systemctl", "--user", "enable", "--now", UNIT]]
    for step in steps:
        if (problem := run(step)) is not None:
            return _said(
                as_json,
                False,
                file,
                f"{file} is written, but `{' '.join(step)}` failed: {problem}. Run it yourself when you are logged in.",
            )
    more = "" if mac else " So that it runs while you are not logged in: loginctl enable-linger"
    return _said(as_json, True, file, f"Installed: {file}. The daemon starts at every login.{more}")


def uninstall(paths: Paths, file: Path, *, platform: str, env: Mapping[str, str], run: Run, as_json: bool) -> int:
    """Take it back. A daemon that runs goes on until it is stopped or idle, unless the system started it."""
    del paths, env
    if not file.exists():
        return _said(as_json, True, file, "It is not installed.")
    problem = (
        run(["launchctl", "bootout", f"gui/{_uid()}/{AGENT}"])
        if platform == "darwin"
        else run(["systemctl", "--user", "disable", "--now", UNIT])
    )
    try:
        file.unlink()
    except OSError as error:
        return _said(as_json, False, file, f"{file} cannot be removed: {error.strerror}")
    if platform != "darwin":
        run(["systemctl", "--user", "daemon-reload"])
    note = f" (the system said: {problem})" if problem else ""
    return _said(as_json, True, file, f"Removed: {file}{note}. Hosts and commands start the daemon as before.")


def _said(as_json: bool, done: bool, file: Path | None, message: str) -> int:
    if as_json:
        found: dict[str, Any] = {"done": done, "file": None if file is None else str(file), "message": message}
        print(json.dumps(found))
    else:
        print(message, file=sys.stdout if done else sys.stderr)
    return 0 if done else 1


def _run(words: Sequence[str]) -> str | None:
    if shutil.which(words[0]) is None:
        return f"{words[0]} is not on this machine"
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if done.returncode == 0 else " ".join((done.stderr or done.stdout).split())[:300] or "it failed"


def _uid() -> int:
    return os.getuid() if sys.platform != "win32" else 0
