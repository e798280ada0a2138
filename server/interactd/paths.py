"""Where interactd keeps its things. Standard library only: the shim needs these before anything is imported.

The rules are platformdirs' own (a test holds the two equal); `INTERACTD_HOME` moves everything into one folder.
Directories are made 0700. The socket lives in a short path of its own, because a unix socket's path may have at
most 104 (macOS) or 108 (Linux) bytes.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

APP = "interactd"
_SUN_PATH_MAX = 100


@dataclass(frozen=True, slots=True)
class Paths:
    """All locations. `config` is for files a person edits; `data` must be kept; the rest can be made again."""

    config: Path
    data: Path
    state: Path
    logs: Path
    cache: Path
    runtime: Path

    @property
    def config_file(self) -> Path:
        return self.config / "config.toml"

    @property
    def database(self) -> Path:
        return self.data / "interactd.db"

    @property
    def weights(self) -> Path:
        return self.cache / "weights"

    @property
    def socket(self) -> Path:
        return self.runtime / "daemon.sock"

    @property
    def lock(self) -> Path:
        return self.state / "daemon.lock"

    @property
    def token_file(self) -> Path:
        return self.state / "token"

    @property
    def log_file(self) -> Path:
        return self.logs / "daemon.log"

    def make(self) -> Paths:
        """Create every directory, 0700. Returns self.

        Raises:
            OSError: one cannot be made, or belongs to another user.
        """
        for folder in {self.config, self.data, self.state, self.logs, self.cache, self.runtime}:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.name == "posix":
            info = self.runtime.lstat()
            if info.st_uid != os.getuid() or not stat.S_ISDIR(info.st_mode):
                raise PermissionError(f"{self.runtime} is not a directory of this user")
            # The runtime folder can sit in a shared /tmp, and an older umask may have made it wider.
            for folder in {self.data, self.state, self.logs, self.runtime}:
                if folder.stat().st_mode & 0o077 and folder.stat().st_uid == os.getuid():
                    folder.chmod(0o700)
        return self


def find(env: Mapping[str, str] | None = None) -> Paths:
    """Compute the locations from the environment (default: this process's)."""
    env = os.environ if env is None else env
    home = env.get("INTERACTD_HOME")
    if home:
        root = Path(os.path.abspath(os.path.expanduser(home)))
        return Paths(
            root / "config",
            root / "data",
            root / "state",
            root / "logs",
            root / "cache",
            _runtime(root),
        )
    user = Path(os.path.expanduser("~"))
    if sys.platform == "darwin":
        support = user / "Library" / "Application Support" / APP
        return Paths(
            support,
            support,
            support,
            user / "Library" / "Logs" / APP,
            user / "Library" / "Caches" / APP,
            _runtime(support),
        )
    if sys.platform == "win32":
        local = Path(env.get("LOCALAPPDATA") or user / "AppData" / "Local") / APP / APP
        return Paths(local, local, local, local / "Logs", local / "Cache", local / "run")

    def xdg(name: str, *default: str) -> Path:
        value = env.get(name, "")
        return (Path(value) if value.strip() else user.joinpath(*default)) / APP

    state = xdg("XDG_STATE_HOME", ".local", "state")
    return Paths(
        xdg("XDG_CONFIG_HOME", ".config"),
        xdg("XDG_DATA_HOME", ".local", "share"),
        state,
        state / "log",
        xdg("XDG_CACHE_HOME", ".cache"),
        # Not XDG_RUNTIME_DIR: a host started by the desktop has it, one started over ssh or by cron may not, and
        # both must find the same daemon.
        _runtime(state),
    )


def _runtime(root: Path) -> Path:
    wanted = root / "run"
    if len(os.fsencode(wanted / "daemon.sock")) <= _SUN_PATH_MAX or sys.platform == "win32":
        return wanted
    tag = hashlib.sha256(os.fsencode(root)).hexdigest()[:12]
    return Path("/tmp") / f"{APP}-{os.getuid()}-{tag}"
