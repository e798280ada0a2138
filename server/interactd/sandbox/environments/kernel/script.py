"""Runs in the sandbox, by whatever Python 3.8+ is there: takes code on stdin, keeps its names, prints as a notebook.

Standard library only; the host trusts nothing that comes from here. Requests are lines of JSON on stdin:
`{"run": NONCE, "code"}`, `{"interrupt": NONCE}`, `{"settle": NONCE}`. stdout carries what the code prints (stderr goes
the same way, so that the order is true) and, when a request is done, NUL NONCE space JSON NUL.
"""

from __future__ import annotations

import _ast
import builtins
import json
import linecache
import os
import queue
import signal
import sys
import threading
import time
import traceback
import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

# Every import here is waited for by the first code in a new sandbox: `ast` and `typing` would be a third of them.
PR_SET_CHILD_SUBREAPER = 36
CO_COROUTINE = 0x80
LINES, LINE = 60, 2000
TOP_LEVEL_AWAIT = _ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


class Kernel:
    """One namespace, and the main thread that runs code in it."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.main = threading.main_thread()
        self.requests = os.fdopen(os.dup(0), "rb")
        self.answers = os.dup(1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(1, 2)
        self.todo: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.running: str | None = None
        self.interrupted = False
        self.cells = 0
        self.loop: Any = None
        self.module = types.ModuleType("__main__")
        self.names: dict[str, Any] = self.module.__dict__
        self.names["__builtins__"] = builtins

    def serve(self) -> None:
        adopt_orphans()
        sys.modules["__main__"] = self.module
        sys.argv = [""]
        sys.displayhook = self.show
        signal.signal(signal.SIGINT, self.on_signal)
        threading.Thread(target=self.listen, daemon=True, name="interactd-requests").start()
        while True:
            try:
                message = self.todo.get()
                if "settle" in message:
                    self.settle(message["settle"])
                else:
                    self.cell(message["run"], message["code"])
            except KeyboardInterrupt:
                continue

    def listen(self) -> None:
        for line in self.requests:
            message: dict[str, Any] = json.loads(line)
            if "interrupt" not in message:
                self.todo.put(message)
            elif self.running == message["interrupt"]:
                self.interrupted = True
                signal.pthread_kill(self.main.ident or 0, signal.SIGINT)
        os._exit(0)

    def on_signal(self, _number: int, _frame: Any) -> None:
        # Late, after the code has ended, it must not end the kernel.
        if self.running is not None:
            raise KeyboardInterrupt

    def done(self, nonce: str, said: dict[str, Any]) -> None:
        data = b"\0" + nonce.encode() + b" " + json.dumps(said).encode() + b"\0"
        while data:
            data = data[os.write(self.answers, data) :]

    # -- running code ------------------------------------------------------------------------------------------------
    def cell(self, nonce: str, source: str) -> None:
        self.cells += 1
        began = time.process_time()
        said: dict[str, Any] = {"ok": False}
        self.fresh_streams()
        self.interrupted = False
        try:
            try:
                self.running = nonce
                self.run(source, f"<cell {self.cells}>")
                said["ok"] = True
            finally:
                self.running = None
        except SystemExit as error:
            said["ok"] = error.code in (None, 0)
            if isinstance(error.code, int):
                said["code"] = error.code
            elif error.code is not None:
                self.print_error(f"{error.code}\n")
        except KeyboardInterrupt as error:
            if not self.interrupted:
                self.report(error)
        except BaseException as error:  # noqa: BLE001 - whatever the code raises is for its author to read
            self.report(error)
        flush()
        if os.getpid() != self.pid:
            # A child that the code forked came back through here: only the kernel answers.
            os._exit(0 if said["ok"] else 1)
        said["interrupted"] = self.interrupted
        said["cpu"] = time.process_time() - began
        self.done(nonce, said)

    def run(self, source: str, name: str) -> None:
        linecache.cache[name] = (len(source), None, source.splitlines(True), name)
        tree = compile(source, name, "exec", _ast.PyCF_ONLY_AST | TOP_LEVEL_AWAIT, dont_inherit=True)
        last: _ast.expr | None = None
        if tree.body and isinstance(tree.body[-1], _ast.Expr) and not source.rstrip().endswith(";"):
            last = tree.body[-1].value
            del tree.body[-1]
        if tree.body:
            self.evaluate(compile(tree, name, "exec", TOP_LEVEL_AWAIT, dont_inherit=True))
        if last is not None:
            whole = compile(_ast.Expression(last), name, "eval", TOP_LEVEL_AWAIT, dont_inherit=True)
            self.show(self.evaluate(whole))

    def evaluate(self, code: types.CodeType) -> Any:
        value = eval(code, self.names)
        if not code.co_flags & CO_COROUTINE:
            return value
        import asyncio

        if self.loop is None or self.loop.is_closed():
            self.loop = asyncio.new_event_loop()
        return self.loop.run_until_complete(value)

    def show(self, value: Any) -> None:
        if value is not None:
            self.names["_"] = value
            sys.stdout.write(repr(value) + "\n")

    # -- what it says ------------------------------------------------------------------------------------------------
    def fresh_streams(self) -> None:
        """Whatever the code before did to these, the next starts with good ones."""
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.stdout = sys.__stdout__ = stream(1)  # pyright: ignore
        sys.stderr = sys.__stderr__ = stream(2)  # pyright: ignore

    def print_error(self, text: str) -> None:
        try:
            sys.stderr.write(text)
        except Exception:  # noqa: BLE001 - the code may have left anything there
            os.write(2, text.encode("utf-8", "backslashreplace"))

    def report(self, error: BaseException) -> None:
        """Print a traceback without this file's frames, short enough to be read."""
        here = Kernel.report.__code__.co_filename
        frames = error.__traceback__
        while frames is not None and frames.tb_frame.f_code.co_filename == here:
            frames = frames.tb_next
        try:
            text = "".join(traceback.format_exception(type(error), error, frames))
        except Exception:  # noqa: BLE001 - formatting runs code of the exception
            text = type(error).__name__
        lines = text.splitlines()
        if len(lines) > LINES:
            lines = [*lines[:20], f"  ... [{len(lines) - LINES + 5} lines left out] ...", *lines[25 - LINES :]]
        lines = [line if len(line) <= LINE else line[: LINE - 300] + " ... " + line[-300:] for line in lines]
        self.print_error("\n".join(lines) + "\n")

    # -- between runs ------------------------------------------------------------------------------------------------
    def settle(self, nonce: str) -> None:
        """End the processes that the code left, and tell whether threads of it go on."""
        left = descendants(self.pid)
        for _ in range(50):
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    continue
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except OSError:
                pass
            left = descendants(self.pid)
            if not left:
                break
            time.sleep(0.005)
        try:
            threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208
        except OSError:
            threads = threading.active_count()
        self.done(nonce, {"threads": threads, "children": len(left)})


def stream(fd: int) -> TextIO:
    return open(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", newline="\n", closefd=False)


def flush() -> None:
    for one in (sys.stdout, sys.stderr):
        try:
            one.flush()
        except Exception:  # noqa: BLE001 - the code may have closed it
            continue


def adopt_orphans() -> None:
    """Make this process the parent of what its children leave behind, so that it can end them."""
    try:
        import _ctypes

        call: Any = _ctypes.call_function  # pyright: ignore
        symbol: Any = _ctypes.dlsym(_ctypes.dlopen(None, 0), "prctl")  # pyright: ignore
        call(symbol, (PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
    except (ImportError, AttributeError, OSError):
        return


def descendants(root: int) -> list[int]:
    below: dict[int, list[int]] = {}
    try:
        names = [name for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
    except OSError:
        return []
    for name in names:
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if fields[0] not in (b"Z", b"X"):
            below.setdefault(int(fields[1]), []).append(int(name))
    found: list[int] = []
    left = [root]
    while left:
        children = below.get(left.pop(), [])
        found += children
        left += children
    return found


if __name__ == "__main__":
    Kernel().serve()
