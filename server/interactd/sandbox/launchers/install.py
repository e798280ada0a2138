"""What to install, said as the one command for this distribution; and what bubblewrap's complaints mean."""

from __future__ import annotations

import os
import shutil
import sys

_MANAGERS = (
    ("apt-get", ["apt-get", "install", "-y", "bubblewrap"]),
    ("dnf", ["dnf", "install", "-y", "bubblewrap"]),
    ("pacman", ["pacman", "-S", "--noconfirm", "bubblewrap"]),
    ("apk", ["apk", "add", "bubblewrap"]),
    ("zypper", ["zypper", "--non-interactive", "install", "bubblewrap"]),
)
_APPARMOR = (
    "Ubuntu 24.04 and later stop it with AppArmor: install the profile `bwrap-userns-restrict` "
    "(`sudo apt-get install apparmor-profiles && sudo ln -s /usr/share/apparmor/extra-profiles/bwrap-userns-restrict "
    "/etc/apparmor.d/ && sudo systemctl reload apparmor`), or run "
    "`sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`."
)


def install_command(*, path: str | None = None) -> list[str] | None:
    """Return the command that installs bubblewrap here (`sudo` in front unless we are root), or None if unknown."""
    if not sys.platform.startswith("linux"):
        return None
    for manager, command in _MANAGERS:
        if shutil.which(manager, path=path):
            if os.getuid() == 0:
                return command
            return ["sudo", *command]
    return None


def sentence() -> str:
    """Return what to do when bubblewrap is missing."""
    command = install_command()
    if command is None:
        return "Install bubblewrap with the system's package manager, or docker or podman."
    plain = " ".join(command).replace(" -y ", " ").replace(" --noconfirm", "").replace(" --non-interactive", "")
    return f"Run `{plain}`, or `interactd setup`, which can run it for you."


def explain(said: str) -> str | None:
    """Return what to do about an error that bubblewrap printed when the machine forbids what it needs, else None."""
    low = said.lower()
    if any(word in low for word in ("uid map", "rtm_newaddr", "no permissions to create new namespace")):
        if _reads("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
            return _APPARMOR
        if _reads("/proc/sys/kernel/unprivileged_userns_clone") == "0":
            return "Run `sudo sysctl kernel.unprivileged_userns_clone=1`."
        if _reads("/proc/sys/user/max_user_namespaces") == "0":
            return "Run `sudo sysctl user.max_user_namespaces=15000`."
        return (
            "User namespaces are not allowed here. In a container, run it with "
            "`--security-opt seccomp=unconfined --security-opt apparmor=unconfined`, or let that container be the "
            "sandbox and choose the launcher `process` by name."
        )
    if "creating new namespace failed" in low or "can't mount proc" in low or "operation not permitted" in low:
        return (
            "This machine or container does not allow new namespaces or their /proc. In Docker add "
            "`--security-opt seccomp=unconfined --security-opt systempaths=unconfined`."
        )
    return None


def _reads(path: str) -> str | None:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return None
