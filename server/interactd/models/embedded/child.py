"""The child process: llama.cpp's HTTP server on a random loopback port, for its parent only.

Protocol: one JSON line in on stdin (`Start`'s fields), one JSON line out on stdout (`{"url", "load_s"}` or
`{"error"}`), then it serves until stdin ends. It cannot outlive its parent: stdin ends with it, and on Linux the kernel
kills it too. Log lines of the native code go to stderr. Every request needs the key, which is made anew for each start.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from interactd.models.embedded.guard import die_with_parent

_NICE = 5
_OOM_SCORE = "500"


@dataclass(frozen=True, slots=True)
class Start:
    """What the parent asks for. `context` is tokens, `cache_mib` the memory for prompts kept beside the slot."""

    path: str
    alias: str
    key: str
    threads: int
    context: int
    cache_mib: int
    parent: int


def main() -> NoReturn:
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    start = Start(**json.loads(sys.stdin.buffer.readline() or b"{}"))
    die_with_parent(start.parent)
    threading.Thread(target=_leave_with_stdin, daemon=True).start()
    _step_back()
    began = time.monotonic()
    try:
        server = _serve(start)
    except (ImportError, RuntimeError, ValueError, OSError) as error:
        _say(answer, {"error": f"{type(error).__name__}: {error}"})
        os._exit(1)
    _say(answer, {"url": server.listening_address, "load_s": round(time.monotonic() - began, 3)})
    threading.Event().wait()
    os._exit(0)


def _serve(start: Start) -> Any:
    # The binding is compiled and has no types.
    xllamacpp: Any = importlib.import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = start.path
    params.model_alias = {start.alias}
    params.n_ctx = start.context
    params.n_parallel = 1
    params.cpuparams.n_threads = start.threads
    params.cpuparams_batch.n_threads = start.threads
    params.cache_ram_mib = start.cache_mib
    params.n_threads_http = 6
    params.api_keys = [start.key]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.ui = False
    params.cors_origins = ""
    params.cors_credentials = False
    params.offline = True
    # A warm-up run only moves the wait from the first turn to the start.
    params.warmup = False
    return xllamacpp.Server(params)


def _step_back() -> None:
    """Let everything else on the machine go first, and be the first to go when memory runs out."""
    with contextlib.suppress(OSError, AttributeError):
        os.nice(_NICE)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)


def _leave_with_stdin() -> None:
    while sys.stdin.buffer.read(4096):
        pass
    os._exit(0)


def _say(answer: Any, line: dict[str, Any]) -> None:
    answer.write(json.dumps(line) + "\n")
    answer.flush()


if __name__ == "__main__":
    main()
