"""The first process of a sandbox: starts commands when told to, ends each one's whole tree, says how it ended.

Run as `python -I -S supervisor.py SOCKET_FD MAX_PROCESSES`; imports as little as it can, because its start is part of
every cold start. Requests come over a stream socket: 12 bytes of header (kind, id, length), a body, and for `EXEC`
three descriptors (stdin, stdout, stderr). Answers are 32 bytes each, and the host trusts none of them.

Each command runs under a guard, a process that adopts whatever the command orphans (setsid, double fork), so that the
guard's descendants are exactly the command's tree. Code in the sandbox has the guard's uid and may kill it: the orphans
then fall to this process, which kills every descendant that has no living guard. It may do no more than that: neither
a guard nor this process can be looked into through /proc, whose `mem` and `fd` a process of the same uid could open.
"""

# ruff: noqa: PTH109, PTH208 - pathlib is not worth its import here

from __future__ import annotations

import _socket
import os
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal  # `signal` imports enum, which is slower than all of this

HEADER = 12
READY, EXEC, KILL, EXIT = 1, 2, 3, 4
PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 4, 36
OOM = "/proc/self/oom_score_adj"
NO_PROCESS = 1 << 24
KILL_PATIENCE_S = 0.4
SWEEP_S = 0.002


class Ignore:
    """`contextlib.suppress(OSError)` without its import."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: object) -> bool:
        return kind is not None and issubclass(kind, OSError)


def prctl(option: int, value: int) -> int:
    """Call prctl(2) without importing ctypes, which would cost a third of this program's start."""
    try:
        import _ctypes

        handle = _ctypes.dlopen(None, 0)  # pyright: ignore[reportArgumentType]
        call = _ctypes.call_function  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]
        return int(call(_ctypes.dlsym(handle, "prctl"), (option, value, 0, 0, 0)))  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]
    except (ImportError, AttributeError, OSError):
        return -1


def parents() -> dict[int, int]:
    """Every process seen here, with its parent; empty where there is no /proc."""
    found: dict[int, int] = {}
    try:
        names = os.listdir("/proc")
    except OSError:
        return found
    for name in names:
        if name.isdigit():
            try:
                fd = os.open(f"/proc/{name}/stat", os.O_RDONLY)
            except OSError:
                continue
            with Ignore():
                words = os.read(fd, 1024).rpartition(b")")[2].split()
                if len(words) > 1:
                    found[int(name)] = int(words[1])
            os.close(fd)
    return found


def descendants(root: int, without: set[int]) -> list[int]:
    """Return all below `root`, leaving out the processes in `without` and all below them."""
    children: dict[int, list[int]] = {}
    for pid, parent in parents().items():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    left = [root]
    while left:
        for pid in children.get(left.pop(), ()):
            if pid not in without:
                found.append(pid)
                left.append(pid)
    return found


def kill(pid: int, number: int) -> None:
    with Ignore():
        os.kill(pid, number)


def volunteer() -> int:
    """Open what tells the kernel whom to take when memory is out; a process that is closed to /proc cannot any more."""
    try:
        return os.open(OOM, os.O_WRONLY)
    except OSError:
        return -1


def close_to_proc() -> None:
    """Have /proc show nothing of this process, or of those that it forks, to code of the same uid."""
    prctl(PR_SET_DUMPABLE, 0)


class Stop(Exception):
    """The guard was told to end its command."""


class Guard:
    """Runs one command to its end, in a process of its own; never returns."""

    def __init__(self, body: bytes, fds: list[int], result: int) -> None:
        parts = body.split(b"\0")
        count = int(parts[1])
        self.cwd, self.argv = parts[0], parts[2 : 2 + count]
        self.env = dict(pair.split(b"=", 1) for pair in parts[2 + count :] if b"=" in pair)
        self.fds, self.result = fds, result
        self.main = 0
        self.status = 9
        self.cpu = 0.0
        self.rss = 0

    def run(self) -> None:
        ended = 1
        try:
            self._prepare()
            try:
                self._spawn()
                while not self._reap(0):
                    continue
            except Stop:
                self.status = _signal.SIGKILL
            _signal.signal(_signal.SIGTERM, _signal.SIG_IGN)
            self._sweep()
            os.write(self.result, b"%d %d %d" % (self.status, int(self.cpu * 1e6), self.rss))
            # Only now, when the tree is gone: a signal from it can end this process anywhere above.
            ended = 0
        finally:
            os._exit(ended)

    def _prepare(self) -> None:
        def stop(_number: int, _frame: object) -> None:
            raise Stop

        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        _signal.set_wakeup_fd(-1)
        _signal.signal(_signal.SIGTERM, stop)
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        os.setsid()
        for target, fd in enumerate(self.fds):
            os.dup2(fd, target)
        if self.result != 3:
            os.dup2(self.result, 3, inheritable=False)
            self.result = 3
        os.closerange(4, 4096)

    def _spawn(self) -> None:
        try:
            os.chdir(self.cwd)
            os.putenv("PATH", os.fsdecode(self.env.get(b"PATH", b"/usr/bin:/bin")))
            ignored = [_signal.SIGPIPE, _signal.SIGXFSZ]
            self.main = os.posix_spawnp(self.argv[0], self.argv, self.env, setpgroup=0, setsigdef=ignored)
        except (OSError, ValueError) as error:
            missing = isinstance(error, FileNotFoundError)
            os.write(2, b"cannot run " + self.argv[0][:200] + b": " + str(error).encode()[:300] + b"\n")
            self.status = (127 if missing else 126) << 8
        null = os.open("/dev/null", os.O_RDWR)
        for target in range(3):
            os.dup2(null, target)
        os.close(null)

    def _reap(self, flags: int) -> bool:
        """Wait for one child; returns whether it was the command itself, or there is nothing left to wait for."""
        try:
            pid, status, usage = os.wait4(-1, flags)
        except ChildProcessError:
            return True
        if pid == 0:
            return False
        self.cpu += usage.ru_utime + usage.ru_stime
        self.rss = max(self.rss, usage.ru_maxrss)
        if pid == self.main:
            self.status = status
            return True
        return False

    def _sweep(self) -> None:
        me = os.getpid()
        while True:
            try:
                while True:
                    pid, status, usage = os.wait4(-1, os.WNOHANG)
                    if pid == 0:
                        break
                    self.cpu += usage.ru_utime + usage.ru_stime
                    self.rss = max(self.rss, usage.ru_maxrss)
                    if pid == self.main:
                        self.status = status
            except ChildProcessError:
                return
            below = descendants(me, set())
            for pid in below:
                kill(pid, _signal.SIGKILL)
            if not below and self.main:
                with Ignore():
                    os.killpg(self.main, _signal.SIGKILL)
            time.sleep(SWEEP_S)


class Supervisor:
    """Serves the host's requests until its socket ends."""

    def __init__(self, fd: int, processes: int) -> None:
        self.socket = _socket.socket(fileno=fd)
        self.processes = processes
        self.guards: dict[int, tuple[int, int]] = {}
        """pid of the guard -> (id of the command, descriptor of its result)"""
        self.dying: dict[int, float] = {}
        self.strays = False
        self.score = volunteer()
        self.cmsg = getattr(_socket, "MSG_CMSG_CLOEXEC", 0)

    def run(self) -> None:
        wake, poke = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(poke, False)
        _signal.signal(_signal.SIGCHLD, lambda _number, _frame: None)
        _signal.set_wakeup_fd(poke, warn_on_full_buffer=False)
        if os.getpid() != 1:
            prctl(PR_SET_CHILD_SUBREAPER, 1)
        watch = select.poll()
        watch.register(self.socket.fileno(), select.POLLIN)
        watch.register(wake, select.POLLIN)
        self.answer(READY, 0, 0, 0, 0)
        # Both load a library: while the host takes note, and before the first command.
        close_to_proc()
        if self.processes:
            import resource

            resource.setrlimit(resource.RLIMIT_NPROC, (self.processes, self.processes))
        while True:
            timeout = 5 if self.strays else 50 if self.dying else None
            for fd, _event in watch.poll(timeout):
                if fd == wake:
                    os.read(wake, 4096)
                elif not self.request():
                    return
            self.reap()
            self.press()

    def answer(self, kind: int, number: int, status: int, cpu: int, rss: int) -> None:
        frame = bytes([kind, 0, 0, 0]) + number.to_bytes(4, "little") + status.to_bytes(4, "little")
        self.socket.sendall(frame + cpu.to_bytes(8, "little") + rss.to_bytes(8, "little") + b"\0\0\0\0")

    def request(self) -> bool:
        head, ancillary, _flags, _address = self.socket.recvmsg(HEADER, 256, _socket.MSG_WAITALL | self.cmsg)
        if len(head) < HEADER:
            return False
        fds: list[int] = []
        for _level, _kind, data in ancillary:
            fds += [int.from_bytes(data[at : at + 4], sys.byteorder) for at in range(0, len(data) - 3, 4)]
        body = bytearray()
        length = int.from_bytes(head[8:12], "little")
        while len(body) < length:
            more = self.socket.recv(min(length - len(body), 1 << 20))
            if not more:
                return False
            body += more
        number = int.from_bytes(head[4:8], "little")
        if head[0] == EXEC:
            self.start(number, bytes(body), fds)
        elif head[0] == KILL:
            for pid, (command, _result) in self.guards.items():
                if command == number:
                    kill(pid, _signal.SIGTERM)
                    kill(pid, _signal.SIGCONT)
                    self.dying[pid] = time.monotonic() + KILL_PATIENCE_S
        return True

    def start(self, number: int, body: bytes, fds: list[int]) -> None:
        result, write = os.pipe()
        # Out of memory, the kernel should take a command, and leave this side alive to say so.
        self.rank(b"500")
        try:
            pid = os.fork()
        except OSError:
            pid = -1
        if pid == 0:
            Guard(body, fds, write).run()
        self.rank(b"0")
        for fd in (*fds, write):
            os.close(fd)
        if pid < 0:
            os.close(result)
            self.answer(EXIT, number, NO_PROCESS, 0, 0)
            return
        os.set_blocking(result, False)
        self.guards[pid] = (number, result)

    def rank(self, score: bytes) -> None:
        if self.score >= 0:
            with Ignore():
                os.write(self.score, score)

    def reap(self) -> None:
        while True:
            try:
                pid, ended = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self.strays = False
                break
            if pid == 0:
                break
            guard = self.guards.pop(pid, None)
            self.dying.pop(pid, None)
            if guard is None:
                continue
            number, result = guard
            status = cpu = rss = 0
            try:
                words = os.read(result, 64).split()
                status, cpu, rss = (min(int(word), 1 << 52) for word in words)
                status &= 0xFFFF
            except (OSError, ValueError):
                ended = ended or 1
            if ended:
                # It did not end by itself, so that its command's tree may be alive, whatever the pipe says.
                status, cpu, rss = 9, 0, 0
                self.strays = True
            os.close(result)
            if self.strays:
                self.sweep()
            self.answer(EXIT, number, status, cpu, rss)

    def sweep(self) -> None:
        """Kill what has no living guard: the orphans of a guard that its own command killed."""
        for _round in range(50):
            below = descendants(os.getpid(), set(self.guards))
            if not below:
                self.strays = False
                return
            for pid in below:
                kill(pid, _signal.SIGKILL)
            time.sleep(SWEEP_S)
            for pid in below:
                try:
                    os.waitpid(pid, os.WNOHANG)
                except OSError:
                    continue
        # It forks faster than it can be listed. One kill of everything is atomic; the other commands go with it.
        if os.getpid() == 1:
            kill(-1, _signal.SIGKILL)

    def press(self) -> None:
        now = time.monotonic()
        for pid, deadline in list(self.dying.items()):
            if now > deadline:
                kill(pid, _signal.SIGKILL)
                self.dying[pid] = now + KILL_PATIENCE_S
        if self.strays:
            self.sweep()


def guard_once(token: str, argv: list[str]) -> None:
    """Run one command with this process's own stdin, stdout and stderr, and end as it ended (for container engines)."""
    pairs = [f"{name}={value}".encode() for name, value in os.environ.items()]
    words = [os.getcwd().encode(), str(len(argv)).encode(), *map(os.fsencode, argv), *pairs]
    result, write = os.pipe()
    fds = [os.dup(fd) for fd in range(3)]
    score = volunteer()
    if score >= 0:
        with Ignore():
            os.write(score, b"500")
        os.close(score)
    close_to_proc()
    pid = os.fork()
    if pid == 0:
        os.putenv("INTERACTD_TOKEN", token)
        Guard(b"\0".join(words), fds, write).run()
    _signal.signal(_signal.SIGTERM, lambda _number, _frame: kill(pid, _signal.SIGTERM))
    os.close(write)
    for fd in (*fds, 0, 1, 2):
        os.close(fd)
    os.waitpid(pid, 0)
    words = os.read(result, 64).split()
    os._exit(_code(int(words[0])) if words else 137)


def _code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def end_guard(token: str) -> None:
    """Tell the guard that was started with `token` to end its command, and wait for it, for a second at most."""
    for _round in range(50):
        found = False
        for pid in parents():
            try:
                fd = os.open(f"/proc/{pid}/cmdline", os.O_RDONLY)
            except OSError:
                continue
            words = os.read(fd, 4096).split(b"\0")
            os.close(fd)
            if pid != os.getpid() and b"--guard" in words and token.encode() in words:
                found = True
                kill(pid, _signal.SIGTERM)
        if not found:
            return
        time.sleep(0.02)
    os._exit(1)


def main() -> None:
    if sys.argv[1] == "--guard":
        guard_once(sys.argv[2], sys.argv[3:])
    if sys.argv[1] == "--end":
        end_guard(sys.argv[2])
        return
    fd, processes = int(sys.argv[1]), int(sys.argv[2])
    os.closerange(fd + 1, 256)
    try:
        with Ignore():
            Supervisor(fd, processes).run()
    finally:
        if os.getpid() != 1:
            for _round in range(50):
                below = descendants(os.getpid(), set())
                for pid in below:
                    kill(pid, _signal.SIGKILL)
                if not below:
                    break
                time.sleep(SWEEP_S)
        os._exit(0)


main()
