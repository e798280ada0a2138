"""Starting a daemon: a detached process of its own session, with an environment that is nobody's in particular."""

from __future__ import annotations

import os
import sys
import time

from interactd.shim import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping

    from interactd.paths import Paths

_KEPT = frozenset(
    {
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "USERNAME",
        "SHELL",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TMPDIR",
        "TMP",
        "TEMP",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "no_proxy",
        "LD_LIBRARY_PATH",
        "DYLD_LIBRARY_PATH",
        "PYTHONHOME",
        "PYTHONUTF",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONPYCACHEPREFIX",
        "SYSTEMROOT",
        "SYSTEMDRIVE",
        "WINDIR",
        "COMSPEC",
        "PATHEXT",
        "USERPROFILE",
        "APPDATA",
        "LOCALAPPDATA",
        "PROGRAMDATA",
        "NUMBER_OF_PROCESSORS",
        "PROCESSOR_ARCHITECTURE",
    }
)
_KEPT_PREFIXES = ("LC_", "XDG_", "INTERACTD_")
_FOLDERS = ("INTERACTD_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "TMPDIR")
STATUS_S = 15.0


class StartFailed(Exception):
    """The new process ended, or said that it cannot be the daemon. `repair` may say what to do."""

    def __init__(self, message: str, repair: str | None = None) -> None:
        super().__init__(message)
        self.repair = repair


def own_command() -> list[str]:
    """Return the command line that makes a daemon of this installation (without its last argument)."""
    # -P: the daemon's folder is the user's home, and a stray json.py there must not become ours.
    return [sys.executable, "-P", "-m", "interactd", "daemon"]


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return what of `env` the daemon may have. Keys are not among it: they come with each host's hello, because
    the daemon outlives the host that happened to start it."""
    kept = {
        name: value
        for name, value in env.items()
        if name in _KEPT or name.startswith(_KEPT_PREFIXES) or (sys.platform == "win32" and name.upper() in _KEPT)
    }
    for name in _FOLDERS:
        if kept.get(name, "").strip() and not kept[name].startswith("~"):
            kept[name] = os.path.abspath(kept[name])
    # Our own package must be found as it was found here, but nothing else that a host's PYTHONPATH may bring.
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    if root in (os.path.abspath(entry) for entry in env.get("PYTHONPATH", "").split(os.pathsep) if entry):
        kept["PYTHONPATH"] = root
    return kept


def start(paths: Paths, command: list[str]) -> bool:
    """Start a daemon and wait until it listens (not until it has imported everything: connections queue).

    Args:
        paths: already made.
        command: the command line; `--spawned` is added to it.

    Returns:
        True when the new one listens; False when another holds the lock, or nothing was heard for 15 s.

    Raises:
        StartFailed: it ended, or said why it cannot be the daemon.
    """
    import subprocess

    home = os.path.expanduser("~")
    log = os.open(os.path.join(paths.logs_dir, "daemon.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        process = _popen([*command, "--spawned"], home if os.path.isdir(home) else os.path.abspath(os.sep), log)
    except OSError as error:
        raise StartFailed(f"{command[0]} could not be run: {error}") from error
    finally:
        os.close(log)
    try:
        said = _status(process)
    finally:
        if process.stdout:
            process.stdout.close()
    if said is None:
        return False  # a machine that busy may still get there; whoever waits finds out by connecting
    if sys.platform != "win32":
        try:
            code = process.wait(5)  # it forks once more, so that it is nobody's child
        except subprocess.TimeoutExpired:
            code = None
    else:
        code = process.poll()
    word, _, rest = said.strip().partition(" ")
    if word == "listening":
        return True
    if word == "held":
        return False
    problem = record.json_object(rest) if word == "error" else None
    if problem:
        raise StartFailed(str(problem.get("message")), problem.get("repair"))
    raise StartFailed(f"the new daemon ended with status {code}{last_words(paths)}")


def last_words(paths: Paths) -> str:
    """Return `: <the log's last line>`, or nothing when there is none."""
    try:
        with open(os.path.join(paths.logs_dir, "daemon.log"), "rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - 4096, 0))
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    return f": {lines[-1].strip()[:300]}" if lines else ""


def _popen(command: list[str], folder: str, log: int) -> subprocess.Popen[bytes]:
    import subprocess

    env = environment(os.environ)
    if sys.platform != "win32":
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=folder,
            env=env,
            start_new_session=True,
            umask=0o077,
        )
    flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
    for extra in (subprocess.CREATE_BREAKAWAY_FROM_JOB, 0):
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=folder,
                env=env,
                creationflags=flags | extra,
            )
        except PermissionError:
            # Hosts put their servers into a job that kills all of it at the end, and may forbid leaving it.
            if not extra:
                raise
            sys.stderr.write("interactd: this host does not let the daemon outlive it; runs stop when it closes.\n")
    raise AssertionError("unreachable")


def _status(process: subprocess.Popen[bytes]) -> str | None:
    """Return the line the new process says of itself, "" when it ends without one, None when the time is up."""
    if process.stdout is None:
        return ""
    fd = process.stdout.fileno()
    if sys.platform == "win32":  # pipes cannot be waited for there; the daemon says its line before anything heavy
        return process.stdout.readline().decode("utf-8", "replace")
    import select

    said = b""
    deadline = time.monotonic() + STATUS_S
    while b"\n" not in said:
        ready, _, _ = select.select([fd], [], [], max(deadline - time.monotonic(), 0))
        if not ready:
            return None
        chunk = os.read(fd, 65536)
        if not chunk:
            return ""
        said += chunk
    return said.decode("utf-8", "replace")
