"""code_execution: Python in the environment's kernel, or a bash script."""

from __future__ import annotations

import re
from typing import Any, Final

from interactd.builtins.clamp import clamped
from interactd.builtins.declare import declare
from interactd.builtins.port import Outcome, Replay, ToolContext
from interactd.sandbox.environments_port import Ran
from interactd.sandbox.port import Exit

_FENCE: Final = re.compile(r"\s*```[A-Za-z0-9_+-]*\n(.*?)\n?```\s*", re.DOTALL)
_ENDED: Final = {
    "timeout": "It was stopped: it ran longer than {wall:.0f} s. Do less at a time, or run it in smaller pieces.",
    "cpu": "It was stopped: it used up its processor time. Do less at a time.",
    "memory": "It was stopped: out of memory. Work on less data at a time.",
    "pids": "It was stopped: too many processes.",
    "disk": "It was stopped: the disk is full. Delete files that are not needed.",
    "output": "It was stopped: too much output. Print less, or write it to a file.",
    "cancelled": "It was cancelled.",
    "sandbox_died": "The sandbox died while it ran. Files are kept; everything else is gone.",
}


class CodeExecution:
    """Names defined by one Python call are there in the next."""

    name = "code_execution"
    replay: Replay = "never"
    parallel = False
    declaration = declare(
        "code_execution",
        "Run code in the sandbox, in /workspace, and return what it prints. "
        "Python keeps its variables between calls; bash starts anew each time.",
        {
            "language": {"type": "string", "enum": ["python", "bash"]},
            "code": {"type": "string", "description": "the whole program or script"},
        },
        required=("language", "code"),
    )

    async def call(self, arguments: dict[str, Any], ctx: ToolContext) -> Outcome:
        code: str = arguments["code"]
        if fenced := _FENCE.fullmatch(code):
            code = fenced[1]
        if not code.strip():
            return Outcome("There is no code to run.", is_error=True)
        run = ctx.workspace.run_python if arguments["language"] == "python" else ctx.workspace.run_bash
        ran = await run(code, on_output=ctx.printed.feed)
        failed = ran.exit.why != "exit" or ran.exit.code != 0
        said = await clamped(_shown(ran.output), ctx, whole=not ran.truncated)
        return Outcome(_told(said, ran), is_error=failed)


def _told(said: str, ran: Ran) -> str:
    lines = [said.rstrip("\n")] if said.strip() else []
    if ran.truncated:
        lines.append("[The output was longer than what is kept.]")
    if ran.state_lost:
        lines.append(
            "[Variables and imports of earlier Python calls are gone: Python was started anew. Files are kept.]"
        )
    if "object is not callable" in said:
        lines.append(
            "[A name of Python's own, such as sum or list, may have another value now. `del` it, or use others.]"
        )
    if note := _ending(ran.exit):
        lines.append(f"[{note}]")
    return "\n".join(lines) or "(no output)"


def _ending(exit_: Exit) -> str:
    if exit_.why != "exit":
        return _ENDED[exit_.why].format(wall=exit_.wall_s)
    if exit_.signal:
        return f"Killed by signal {exit_.signal}."
    return f"Exit code {exit_.code}." if exit_.code else ""


def _shown(output: str) -> str:
    """Progress bars write over their own line: only its last state is worth reading."""
    if "\r" not in output:
        return output
    lines = output.replace("\r\n", "\n").split("\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)
