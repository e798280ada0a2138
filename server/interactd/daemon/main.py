"""`interactd daemon`: become the user's daemon, or start one. Listens before it imports anything heavy."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from interactd import paths as where
from interactd._version import __version__
from interactd.daemon.lock import Lock
from interactd.shim import record, spawn

if TYPE_CHECKING:
    from interactd.daemon.listen import Listener
    from interactd.daemon.port import Application, Settings
    from interactd.paths import Paths

Build = Callable[["Paths"], "tuple[Application, Settings]"]

USAGE = """usage: interactd daemon [--foreground] [--stay]
       interactd daemon install|uninstall [--json]

Start this user's daemon, if none runs. Hosts and commands start it by themselves.

  --foreground   stay in this terminal, log to it, and leave with Ctrl-C
  --stay         never leave for being idle; with --foreground: wait for a daemon that runs already to leave
  install        have the system start it at every login, so that schedules run (systemd, launchd)
  uninstall      take that back
"""
_LOOK_S = 2.0


def main(argv: list[str], build: Build | None = None, command: list[str] | None = None) -> int:
    """Run the daemon, or start it in the background.

    Args:
        argv: what follows `daemon`. `--spawned` is what shims say: detach, and report on stdout.
        build: makes the application; default: interactd's own.
        command: the command line that starts this daemon again; default: this installation's.

    Returns:
        The exit code: 0, 1 when another daemon holds the lock (foreground) or ours cannot start, 2 for wrong usage.
    """
    if argv[:1] in (["install"], ["uninstall"]):
        from interactd.daemon import service

        return service.main(argv, where.find())
    spawned, foreground = "--spawned" in argv, "--foreground" in argv
    if "--stay" in argv:
        # By the environment, which a daemon that is started in the background inherits.
        os.environ["INTERACTD_DAEMON_IDLE_EXIT_S"] = "0"
    unknown = [word for word in argv if word not in ("--spawned", "--foreground", "--stay")]
    if unknown:
        asked = unknown[0] in ("-h", "--help")
        print(USAGE if asked else f"interactd daemon: unknown argument {unknown[0]!r}\n{USAGE}", file=sys.stderr)
        return 0 if asked else 2
    if not spawned and not foreground:
        from interactd.daemon import commands

        return commands.start(where.find())
    if spawned and sys.platform != "win32" and os.fork():
        # Nobody's child: hosts kill whole trees of processes, and nobody would reap us.
        os._exit(0)
    own = command or spawn.own_command()
    return _become(where.find(), foreground, build or _own_application, own, stay="--stay" in argv)


def _become(paths: Paths, foreground: bool, build: Build, command: list[str], *, stay: bool) -> int:
    os.umask(0o077)
    say = _to_terminal if foreground else _to_starter
    try:
        paths.make()
        lock = Lock.acquire(paths)
        while lock is None and foreground and stay:
            time.sleep(_LOOK_S)
            lock = Lock.acquire(paths)
    except OSError as error:
        say("error", _problem(f"{error}", "Make that folder yours and writable, or set INTERACTD_HOME to another."))
        return 1
    if lock is None:
        say("held", None)
        return 1 if foreground else 0
    facts = process_facts(paths, command)
    try:
        from interactd.daemon.listen import Listener

        record.write(paths, facts)
        listener = Listener(paths)
        facts["socket"] = listener.address
        record.write(paths, facts)
    except OSError as error:
        say("error", _problem(f"{error}", "Free some space on the disk, and make sure that the folder can be written."))
        return 1
    say("listening", None)

    from interactd.daemon import log

    log.set_up(paths, foreground=foreground)
    return _carry(paths, lock, listener, facts, build)


def _carry(paths: Paths, lock: Lock, listener: Listener, facts: dict[str, Any], build: Build) -> int:
    """Build the application and run it; whoever waits in the queue is told when that fails."""
    import asyncio
    import logging

    from interactd.daemon import log

    logger = logging.getLogger("interactd.daemon")
    _allow_many_files()
    try:
        application, settings = build(paths)
        log.set_level(settings.log_level)
        log.set_rotation(settings.log_bytes, settings.log_files)

        from interactd.daemon.server import Daemon

        async def serve() -> None:
            await Daemon(paths, lock, listener, settings, facts).run(application)

        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(serve())
    except BaseException as error:
        logger.critical("the daemon ends", exc_info=error)
        _turn_away(listener, error)
        listener.remove()
        code = 1
    else:
        code = 0
    logging.shutdown()
    sys.stderr.flush()
    # Threads that wait for something must not keep the lock from the next daemon.
    os._exit(code)


def _own_application(paths: Paths) -> tuple[Application, Settings]:
    from interactd import app, config
    from interactd.daemon.port import Settings

    settings = config.load(paths)
    daemon = Settings(
        idle_exit_s=settings.daemon.idle_exit_s,
        log_level=settings.daemon.log_level,
        log_bytes=settings.retention.log_bytes,
        log_files=settings.retention.log_files,
    )
    return app.build(paths, settings), daemon


def process_facts(paths: Paths, command: list[str]) -> dict[str, Any]:
    """Return what `state/daemon.json` says of this process; `command` starts this daemon again."""
    version, newest = record.newest(paths, __version__, command)
    return {
        "pid": os.getpid(),
        "version": __version__,
        "executable": sys.executable,
        "argv": sys.argv,
        "started_at": time.time(),
        "socket": None,
        "newest": {"version": version, "command": newest},
    }


def _to_starter(word: str, problem: dict[str, str] | None) -> None:
    import json

    line = f"{word} {json.dumps(problem) if problem else os.getpid()}\n"
    try:
        os.write(1, line.encode("ascii"))
    except OSError:
        return  # who started us is gone; others will come
    if word != "listening":
        return
    # The starter waits for the end of this pipe; what is printed from now on belongs into the log.
    os.dup2(2, 1)


def _to_terminal(word: str, problem: dict[str, str] | None) -> None:
    if problem:
        print(f"interactd: {problem['message']}. {problem['repair']}", file=sys.stderr)
    elif word == "held":
        print("interactd: another daemon runs already; `interactd status` shows it.", file=sys.stderr)


def _problem(message: str, repair: str) -> dict[str, str]:
    return {"message": message, "repair": repair}


def _turn_away(listener: Listener, error: BaseException) -> None:
    """Tell those who connected meanwhile why there is no daemon for them."""
    from interactd.daemon import hello, log

    as_dict = getattr(error, "as_dict", None)
    told: dict[str, Any] = as_dict() if as_dict else {"code": "internal", "message": f"{type(error).__name__}: {error}"}
    told["message"] = log.redact(f"the daemon could not start: {told['message']}")
    try:
        listener.sock.settimeout(0.3)
        while True:
            sock, _ = listener.sock.accept()
            with sock:
                sock.settimeout(1)
                sock.recv(65536)
                sock.sendall(hello.refusal(told, retry=False))
    except OSError:
        return


def _loop_factory() -> Callable[[], Any] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _allow_many_files() -> None:
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8192 if hard == resource.RLIM_INFINITY else min(hard, 8192)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
