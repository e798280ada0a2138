"""Where interactd keeps its things. Standard library only, and little of it: the shim pays for every import.

The rules are platformdirs' own (a test holds the two equal); `INTERACTD_HOME` moves everything into one folder.
Directories are made 0700. The socket lives in a short path of its own, because a unix socket's path may have at
most 104 (macOS) or 108 (Linux) bytes.
"""

from __future__ import annotations

import os
import stat
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing and pathlib cost the shim more than the rest of this module
    from collections.abc import Mapping
    from pathlib import Path

APP = "interactd"
_SUN_PATH_MAX = 100


class Paths:
    """All locations. `config` is for files a person edits; `data` must be kept; the rest can be made again.

    `*_dir` are strings (what the shim uses); the others are `pathlib.Path`s of the same places.
    """

    __slots__ = ("cache_dir", "config_dir", "data_dir", "logs_dir", "runtime_dir", "state_dir")

    def __init__(self, config: str, data: str, state: str, logs: str, cache: str, runtime: str) -> None:
        self.config_dir = config
        self.data_dir = data
        self.state_dir = state
        self.logs_dir = logs
        self.cache_dir = cache
        self.runtime_dir = runtime

    def __repr__(self) -> str:
        return "Paths(" + ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__) + ")"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Paths) and all(getattr(self, n) == getattr(other, n) for n in self.__slots__)

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, name) for name in self.__slots__))

    @property
    def config(self) -> Path:
        return _path(self.config_dir)

    @property
    def data(self) -> Path:
        return _path(self.data_dir)

    @property
    def state(self) -> Path:
        return _path(self.state_dir)

    @property
    def logs(self) -> Path:
        return _path(self.logs_dir)

    @property
    def cache(self) -> Path:
        return _path(self.cache_dir)

    @property
    def runtime(self) -> Path:
        return _path(self.runtime_dir)

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
    def record(self) -> Path:
        return self.state / "daemon.json"

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
        folders = {self.config_dir, self.data_dir, self.state_dir, self.logs_dir, self.cache_dir, self.runtime_dir}
        for folder in folders:
            _make(folder)
        if sys.platform != "win32":
            info = os.lstat(self.runtime_dir)
            if info.st_uid != os.getuid() or not stat.S_ISDIR(info.st_mode):
                raise PermissionError(f"{self.runtime_dir} is not a directory of this user")
            # The runtime folder can sit in a shared /tmp, and an older umask may have made any of them wider.
            for folder in folders:
                found = os.stat(folder)
                if found.st_mode & 0o077 and found.st_uid == os.getuid():
                    os.chmod(folder, 0o700)
        return self


def find(env: Mapping[str, str] | None = None) -> Paths:
    """Compute the locations from the environment (default: this process's). Touches no file."""
    env = os.environ if env is None else env
    home = env.get("INTERACTD_HOME", "")
    if home.strip():
        root = os.path.abspath(_expand(home, env))
        join = os.path.join
        return Paths(
            join(root, "config"),
            join(root, "data"),
            join(root, "state"),
            join(root, "logs"),
            join(root, "cache"),
            _runtime(root),
        )
    user = _home(env)
    if sys.platform == "darwin":
        library = os.path.join(user, "Library")
        support = os.path.join(library, "Application Support", APP)
        logs, caches = os.path.join(library, "Logs", APP), os.path.join(library, "Caches", APP)
        return Paths(support, support, support, logs, caches, _runtime(support))
    if sys.platform == "win32":
        local = os.path.join(env.get("LOCALAPPDATA") or os.path.join(user, "AppData", "Local"), APP, APP)
        logs, caches, run = (os.path.join(local, name) for name in ("Logs", "Cache", "run"))
        return Paths(local, local, local, logs, caches, run)

    def xdg(name: str, *default: str) -> str:
        value = env.get(name, "")
        return os.path.join(value if value.strip() else os.path.join(user, *default), APP)

    state = xdg("XDG_STATE_HOME", ".local", "state")
    return Paths(
        xdg("XDG_CONFIG_HOME", ".config"),
        xdg("XDG_DATA_HOME", ".local", "share"),
        state,
        os.path.join(state, "log"),
        xdg("XDG_CACHE_HOME", ".cache"),
        # Not XDG_RUNTIME_DIR: a host started by the desktop has it, one started over ssh or by cron may not, and
        # both must find the same daemon.
        _runtime(state),
    )


def _home(env: Mapping[str, str]) -> str:
    if sys.platform != "win32" and env.get("HOME"):
        return env["HOME"]
    user = os.path.expanduser("~")
    if os.path.isabs(user) or sys.platform == "win32":
        return user
    # A container may run under a uid that has neither HOME nor a line in passwd.
    return os.path.join("/tmp", f"{APP}-{os.getuid()}-home")


def _expand(path: str, env: Mapping[str, str]) -> str:
    if path == "~" or path.startswith(("~/", "~" + os.sep)):
        return _home(env) + path[1:]
    return os.path.expanduser(path)


def _runtime(root: str) -> str:
    wanted = os.path.join(root, "run")
    if sys.platform == "win32" or len(os.fsencode(os.path.join(wanted, "daemon.sock"))) <= _SUN_PATH_MAX:
        return wanted
    import hashlib

    tag = hashlib.sha256(os.fsencode(root)).hexdigest()[:12]
    return os.path.join("/tmp", f"{APP}-{os.getuid()}-{tag}")


def _make(folder: str) -> None:
    if os.path.isdir(folder):
        return
    parent = os.path.dirname(folder)
    if parent and parent != folder:
        _make(parent)  # not os.makedirs, which would leave the folders between to the umask
    try:
        os.mkdir(folder, mode=0o700)
    except FileExistsError:
        if not os.path.isdir(folder):
            raise


def _path(text: str) -> Path:
    from pathlib import Path

    return Path(text)
