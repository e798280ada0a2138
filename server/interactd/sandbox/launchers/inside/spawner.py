"""Forks sandboxes for the daemon. One thread, few imports, an almost empty environment, and its end is theirs.

A program that is killed while it starts can leave a child that waits for it for ever (bubblewrap's, before it learns of
its parent's death). Such strays become children of this process, which ends them.

Run as `python -I -S spawner.py FD [DISKS]`. Forking here and not in the daemon keeps a threaded process with secrets in
its memory out of it, is faster, and gives the sandboxes a parent whose thread never ends (PR_SET_PDEATHSIG follows the
thread). When the daemon dies, by SIGKILL too, the socket ends, every sandbox is killed, and what is mounted beneath the
folder DISKS (see `sandbox/disks`) is unmounted.

Requests are length-prefixed JSON, with descriptors attached: `spawn`, `listen`, `kill`. Answers are `{"id", "pid"}` or
`{"id", "error"}`, and `{"exited", "status"}` when a child ended.
"""

# ruff: noqa: PTH102, PTH112, PTH118, PTH120 - pathlib is not worth its import here

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import select
import signal
import socket
import sys
from typing import Any

PR_SET_CHILD_SUBREAPER = 36
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
MS_BIND, MS_REC, MS_SLAVE, MS_NOSUID, MS_NODEV = 0x1000, 0x4000, 1 << 19, 0x2, 0x4
NS_GET_USERNS = 0xB701
MNT_DETACH = 2
FITHAW = 0xC0045878

_libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind, data)]
    check(_libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]), f"mount {target}")


def stage(root: str, sources: list[list[str]]) -> None:
    """Show paths that only root can reach to the uid we are about to become, in a mount namespace of our own."""
    check(_libc.unshare(CLONE_NEWNS), "unshare")
    # Not private: what is unmounted outside (another environment's disk) must not be held by this one.
    mount("none", "/", None, MS_REC | MS_SLAVE)
    # Only now: a mount that was opened in the old namespace cannot be bound in the new one.
    opened = [(name, os.open(source, os.O_PATH | os.O_CLOEXEC)) for source, name in sources]
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=0755")
    for name, fd in opened:
        path, source = os.path.join(root, name), f"/proc/self/fd/{fd}"
        if os.path.isdir(source):
            os.mkdir(path, 0o755)
        else:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
        mount(source, path, None, MS_BIND | MS_REC)
        os.close(fd)


def become(plan: dict[str, Any], fds: list[int]) -> None:
    """In the child: take on everything the plan says and exec."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 200) for fd in fds]
    error = high[0]
    try:
        for path in plan.get("join", []):
            fd = os.open(path, os.O_WRONLY)
            os.write(fd, b"0")
            os.close(fd)
        if plan.get("stage"):
            stage(plan["stage"]["root"], plan["stage"]["sources"])
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        for position, target in enumerate(plan["fds"]):
            os.dup2(high[position + 1], target)
        os.closerange(max(plan["fds"]) + 1, 200)
        if plan.get("nice"):
            os.nice(int(plan["nice"]))
        for number, *wanted in plan.get("rlimits", []):
            most = resource.getrlimit(number)[1]
            soft, hard = (value if most == resource.RLIM_INFINITY else min(value, most) for value in wanted)
            resource.setrlimit(number, (soft, hard))
        if plan.get("uid") is not None:
            os.setgroups([])
            os.setresgid(plan["uid"], plan["uid"], plan["uid"])
            os.setresuid(plan["uid"], plan["uid"], plan["uid"])
        if plan.get("cwd"):
            os.chdir(plan["cwd"])
        os.umask(0o022)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.execve(plan["argv"][0], plan["argv"], plan["env"])
    except (OSError, ValueError) as problem:
        os.write(error, str(problem).encode()[:2000])
    finally:
        os._exit(125)


def listen(plan: dict[str, Any], fds: list[int]) -> None:
    """In a child: open a listening socket in another process's network namespace and send it back."""
    try:
        net = os.open(f"/proc/{plan['pid']}/ns/net", os.O_RDONLY)
        owner = fcntl.ioctl(net, NS_GET_USERNS)
        check(_libc.setns(owner, CLONE_NEWUSER), "setns user")
        check(_libc.setns(net, CLONE_NEWNET), "setns net")
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((plan["host"], plan["port"]))
        listener.listen(64)
        with socket.socket(fileno=fds[0]) as back:
            socket.send_fds(back, [b"ok"], [listener.fileno()])
    except OSError as problem:
        os.write(fds[0], b"no " + str(problem).encode()[:500])
    finally:
        os._exit(0)


def own_children() -> list[int]:
    """Every child of this process, also those that it did not start."""
    me = os.getpid()
    with contextlib.suppress(OSError), open(f"/proc/{me}/task/{me}/children", "rb") as file:
        return [int(word) for word in file.read().split()]
    found: list[int] = []
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                if int(file.read().rpartition(b")")[2].split()[1]) == me:
                    found.append(int(name))
    return found


def thaw(target: str) -> None:
    """Undo what the daemon froze to copy it. Nobody can once it is unmounted, and mounted anew it is frozen still."""
    with contextlib.suppress(OSError):
        fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, FITHAW, 0)
        finally:
            os.close(fd)


def unmount_below(root: str) -> None:
    """Unmount the disks that no living daemon has its hand on."""
    with open("/proc/self/mountinfo", errors="surrogateescape") as file:
        targets = [line.split()[4].replace("\\040", " ") for line in file]
    kept = False
    for target in sorted((one for one in targets if one == root or one.startswith(root + "/")), reverse=True):
        if target == root and kept:
            return
        image = -1
        with contextlib.suppress(OSError):
            image = os.open(os.path.join(os.path.dirname(target), "disk.img"), os.O_RDONLY | os.O_NOFOLLOW)
        try:
            if image >= 0:
                fcntl.flock(image, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Under the lock: who wants it meanwhile waits, and then mounts it anew.
            thaw(target)
            _libc.umount2(os.fsencode(target), MNT_DETACH)
        except BlockingIOError:
            kept = True
        finally:
            if image >= 0:
                os.close(image)


class Spawner:
    def __init__(self, fd: int) -> None:
        self.socket = socket.socket(fileno=fd)
        self.children: set[int] = set()
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def run(self) -> None:
        wake, poke = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(poke, False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(poke, warn_on_full_buffer=False)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        watch = select.poll()
        watch.register(self.socket, select.POLLIN)
        watch.register(wake, select.POLLIN)
        while True:
            for fd, _event in watch.poll():
                if fd == wake:
                    os.read(wake, 4096)
                elif not self.request():
                    return
            self.reap()

    def request(self) -> bool:
        head, fds, _flags, _address = socket.recv_fds(self.socket, 4, 16, socket.MSG_WAITALL)
        if len(head) < 4:
            return False
        for fd in fds:
            os.set_inheritable(fd, False)
        length = int.from_bytes(head, "little")
        body = b""
        while len(body) < length:
            more = self.socket.recv(length - len(body))
            if not more:
                return False
            body += more
        plan: dict[str, Any] = json.loads(body)
        try:
            self.act(plan, fds)
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def act(self, plan: dict[str, Any], fds: list[int]) -> None:
        if plan["op"] == "kill":
            if plan["pid"] in self.children:
                os.kill(plan["pid"], signal.SIGKILL)
            return
        try:
            pid = os.fork()
        except OSError as problem:
            self.say({"id": plan["id"], "error": str(problem)})
            return
        if pid == 0:
            if plan["op"] == "spawn":
                become(plan, fds)
            else:
                listen(plan, fds)
        self.children.add(pid)
        self.say({"id": plan["id"], "pid": pid})

    def say(self, message: dict[str, Any]) -> None:
        body = json.dumps(message).encode()
        self.socket.sendall(len(body).to_bytes(4, "little") + body)

    def reap(self) -> None:
        ended = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                break
            ended = True
            if pid in self.children:
                self.children.discard(pid)
                self.say({"exited": pid, "status": status})
        if ended:
            # What a dead child leaves is ours by the time that we hear of its death.
            for pid in own_children():
                if pid not in self.children:
                    os.kill(pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill every child, and what those leave, until there is none."""
        while left := own_children():
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                for pid in left:
                    os.waitpid(pid, 0)


def main() -> None:
    spawner = Spawner(int(sys.argv[1]))
    try:
        with contextlib.suppress(OSError, ValueError):
            spawner.run()
    finally:
        spawner.end()
        if len(sys.argv) > 2 and os.geteuid() == 0:
            unmount_below(os.path.realpath(sys.argv[2]))


main()
