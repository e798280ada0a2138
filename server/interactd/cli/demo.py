"""`interactd demo`: the main job, seen from a host's side.

It does what Claude Desktop or Cursor would do: launches the real stdio server and speaks MCP to it. It keeps a
conversation, kills the daemon with SIGKILL between two turns, and goes on. Everything it makes lives in a folder
of its own that is removed at the end; the user's daemon and sessions are not touched.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import anyio
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.shared.exceptions import MCPError
from mcp_types import ProgressNotification
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from interactd import __version__, paths

FIRST_TURN = "My name is Ada and my lucky number is 7421. Please remember both."
SECOND_TURN = "What is my lucky number?"
MEMORY = "7421"
TASK = (
    "Compute the sum of the squares of the numbers from 1 to 100 with Python, write it to result.txt, then read the "
    "file back."
)
ARTIFACT = "result.txt"
RESULT = "338350"


@dataclass
class Demo:
    """One run: where it prints, where it lives, and what it saw."""

    console: Console
    home: Path
    model: str
    sandbox: bool
    silent: bool = False
    client: Client | None = None
    streamed: list[str] = field(default_factory=list[str])

    async def on_message(self, message: Any) -> None:
        """Print streamed text as it arrives; status lines are for hosts with a progress row."""
        if not isinstance(message, ProgressNotification):
            return
        text = message.params.message or ""
        if self.silent:
            return
        if (message.params.meta or {}).get("interactd/kind") == "text":
            self.streamed.append(text)
            self.console.print(text, end="", style="green", markup=False, highlight=False)

    async def call(self, tool: str, **arguments: Any) -> tuple[str, dict[str, Any], float]:
        """Call a tool; returns its text, its structured fields, and the seconds it took."""
        assert self.client is not None
        began = time.perf_counter()
        result = await self.client.call_tool(tool, arguments, progress_callback=_ignore_progress)
        seconds = time.perf_counter() - began
        text = "\n".join(getattr(part, "text", "") for part in result.content)
        if result.is_error:
            raise DemoFailed(f"{tool}: {text}")
        return text, result.structured_content or {}, seconds

    def step(self, number: int, title: str) -> None:
        self.console.print(f"\n[bold cyan]{number}.[/] [bold]{title}[/]")

    def fact(self, name: str, value: str | Text) -> None:
        # Under its own column: an id is never cut in two, and a terminal of any width shows it well.
        table = Table.grid(padding=(0, 1))
        table.add_column(style="dim", min_width=10)
        table.add_column(overflow="fold")
        table.add_row(name, value)
        self.console.print(Padding(table, (0, 0, 0, 3), expand=False))

    async def turn(self, session_id: str, text: str) -> str:
        """Send one turn, show it as it streams, and return the model's whole answer."""
        self.streamed.clear()
        self.fact("you", text)
        self.console.print("   [dim]model[/]      ", end="")
        shown, fields, seconds = await self.call(
            "send_turn", session_id=session_id, input=text, wait_s=45, generation_config={"temperature": 0}
        )
        while fields.get("status") in {"queued", "in_progress"}:
            shown, fields, more = await self.call("get_interaction", interaction_id=fields["interaction_id"], wait_s=45)
            seconds += more
        self.console.print()
        usage: dict[str, Any] = fields.get("usage") or {}
        answer = "".join(self.streamed) or shown
        self.fact("id", str(fields.get("interaction_id")))
        self.fact(
            "tokens",
            f"{usage.get('total_input_tokens', '?')} in "
            f"({usage.get('total_cached_tokens', 0)} of them from the cache), "
            f"{usage.get('total_output_tokens', '?')} out",
        )
        self.fact("time", f"{seconds:.1f} s, status {fields.get('status')}")
        if fields.get("status") != "completed":
            raise DemoFailed(f"the turn ended {fields.get('status')}: {shown}")
        return answer

    async def run(self) -> None:
        env = {**os.environ, "INTERACTD_HOME": str(self.home)}
        server = StdioServerParameters(command=sys.executable, args=["-m", "interactd", "mcp"], env=env)
        self.step(1, "A host starts `interactd mcp` and speaks MCP to it")
        began = time.perf_counter()
        async with Client(stdio_client(server), message_handler=self.on_message) as client:
            self.client = client
            tools = (await client.list_tools()).tools
            info = client.server_info
            self.fact("server", f"{info.name if info else '?'} {info.version if info else ''}")
            self.fact("protocol", str(client.protocol_version))
            self.fact("tools", f"{len(tools)}: {', '.join(tool.name for tool in tools)}")
            self.fact("time", f"{time.perf_counter() - began:.2f} s, the daemon's cold start included")

            self.step(2, f"A session on {self.model}, and a first turn")
            _, fields, seconds = await self.call(
                "create_session",
                model=self.model,
                title="README demo",
                system_instruction="You are a helpful assistant. Answer in one short sentence.",
            )
            session_id = fields["session_id"]
            self.fact("session", f"{session_id} ({seconds * 1000:.0f} ms, kept for 24 h after the last turn)")
            await self.turn(session_id, FIRST_TURN)

            self.step(3, "kill -9 on the daemon, in the middle of the session")
            daemon = json.loads((paths.find(env).state / "daemon.json").read_text())
            os.kill(daemon["pid"], signal.SIGKILL)
            self.fact("killed", f"pid {daemon['pid']}; the host's stdio connection stays open")
            began = time.perf_counter()
            await self.call("server_status")
            again = json.loads((paths.find(env).state / "daemon.json").read_text())
            self.fact("back", f"pid {again['pid']}, {time.perf_counter() - began:.2f} s later, same connection")
            if again["pid"] == daemon["pid"]:
                raise DemoFailed("the daemon was not replaced")

            self.step(4, "The session came back; a second turn needs the first one's memory")
            answer = await self.turn(session_id, SECOND_TURN)
            if MEMORY not in answer:
                raise DemoFailed(f"the answer does not contain {MEMORY}: {answer!r}")
            self.fact("memory", Text(f"{MEMORY} came from the turn before the kill", style="green"))

            if self.sandbox:
                await self.work()

            self.step(6 if self.sandbox else 5, "What the store holds")
            text, _, _ = await self.call("search_history", query="lucky number")
            for line in text.splitlines():
                indent = len(line) - len(line.lstrip())
                self.console.print(Padding(Text(line.lstrip(), style="dim"), (0, 0, 0, 3 + indent), expand=False))
        self.client = None

    async def work(self) -> None:
        """Give the built-in agent a small real task, and get its file back."""
        self.step(5, "The built-in agent computes, writes a file in a sandbox, reads it back, and hands it over")
        self.fact("task", TASK)
        self.silent = True
        text, fields, seconds = await self.call("run_agent_background", input=TASK, model=self.model)
        self.fact("handle", f"{fields['interaction_id']} after {seconds:.2f} s; the work goes on in the daemon")
        while fields.get("status") in {"queued", "in_progress"}:
            text, fields, more = await self.call("get_interaction", interaction_id=fields["interaction_id"], wait_s=45)
            seconds += more
        if fields.get("status") != "completed":
            raise DemoFailed(f"the agent ended {fields.get('status')}: {text}")
        page, _, _ = await self.call("get_session", session_id=fields["session_id"], response_format="detailed")
        for line in page.partition("[user]")[2].partition("\nNext:")[0].splitlines()[2:]:
            self.console.print(Padding(Text(line, style="dim"), (0, 0, 0, 5)))
        for what, seen in done_in(page).items():
            if not seen:
                raise DemoFailed(f"no step {what}: {page}")
        self.fact("checked", Text(f"its steps {', '.join(done_in(page))}", style="green"))
        self.fact("sandbox", str(fields.get("sandbox")))
        self.fact("time", f"{seconds:.1f} s, status completed")
        name = ARTIFACT
        content, _, _ = await self.call("fetch_artifacts", interaction_id=fields["interaction_id"], name=name)
        if RESULT not in content:
            raise DemoFailed(f"{name} does not hold {RESULT}: {content!r}")
        listed: list[dict[str, Any]] = fields.get("artifacts") or []
        sha = next((each["sha256"] for each in listed if each["name"] == name), "?")
        self.fact("artifact", Text(f"{name} holds {RESULT}, sha256 {sha[:16]}…", style="green"))


def done_in(page: str) -> dict[str, bool]:
    """Return the parts of the task, each with whether a step of this transcript did it.

    A file was read back when a step opened it for reading, after it had been written, and got its content.
    """
    parts = re.split(r"(?m)^(\[(?:user|model|thought|runs|calls|output|error|result of)\b[^\n]*\])$", page)
    blocks = list(zip(parts[1::2], parts[2::2], strict=True))
    computed = wrote = read = False
    for (call, said), (result, came) in itertools.pairwise(blocks):
        if not call.startswith(("[runs", "[calls")) or result.startswith("[error"):
            continue
        code = call.startswith("[runs")
        opens = "calls view_file" in call if not code else _READS.search(said) is not None
        read = read or (opens and ARTIFACT in said and RESULT in came and (wrote or code))
        wrote = wrote or (
            ARTIFACT in said and ("calls write_file" in call or (code and _WRITES.search(said) is not None))
        )
        computed = computed or code
    return {"ran code": computed, f"wrote {ARTIFACT}": wrote, f"read {ARTIFACT} back": read}


_READS = re.compile(
    rf"""open\(["']{re.escape(ARTIFACT)}["'](?:, *["']r["'])?\)|cat {re.escape(ARTIFACT)}|read_text\("""
)
_WRITES = re.compile(r"""["'][wax]["']|write_text\(|>""")


class DemoFailed(Exception):
    """The demo saw something other than it promises."""


async def _ignore_progress(progress: float, total: float | None, message: str | None) -> None:
    """Asking for progress is what makes the server stream; the text is taken from the notification itself."""


def run(model: str = "embedded") -> int:
    """Run the demo and return the exit code: 0 when everything it promises was seen."""
    console = Console(highlight=False)
    console.print(f"[bold]interactd {__version__}[/]: durable sessions and agents over MCP, on your own machine")
    if model == "embedded" or model.startswith("embedded/"):
        from interactd.cli.setup import ensure_weights

        code = ensure_weights(console)
        if code:
            return code
    from interactd.cli.sandbox import ensure_sandbox

    sandbox = ensure_sandbox(console)
    if not sandbox:
        console.print("[yellow]No sandbox, so the agent's part is left out.[/]")
    mine = paths.find()
    home = Path(tempfile.mkdtemp(prefix="interactd-demo-"))
    os.environ.setdefault("INTERACTD_WEIGHTS", str(mine.weights))
    demo = Demo(console, home, model, sandbox)
    failures: list[BaseException] = []
    try:
        anyio.run(demo.run)
    except* (DemoFailed, MCPError, OSError) as problems:
        failures.extend(_leaves(problems))
    except* KeyboardInterrupt:
        failures.append(KeyboardInterrupt())
    finally:
        _stop(home)
    problem = next(iter(failures), None)
    if problem is not None and not isinstance(problem, KeyboardInterrupt):
        console.print(Text.assemble("\n", ("The demo failed: ", "red"), str(problem)))
        console.print(f"   log: {paths.find({'INTERACTD_HOME': str(home)}).log_file} (kept)", soft_wrap=True)
        return 1
    shutil.rmtree(home, ignore_errors=True)
    if problem is not None:
        raise problem
    console.print(
        "\n[bold green]Done.[/] Give it to your host: the README has the lines for Claude, Cursor, VS Code and "
        "others; or talk to it here: [bold]interactd chat[/]. The embedded model is an offline fallback: with a key "
        "or a local server (`interactd models` shows what is reachable) the same session runs on a real one."
    )
    return 0


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _leaves(cast("BaseExceptionGroup[BaseException]", each))
        else:
            yield each


def _stop(home: Path) -> None:
    from interactd.daemon.commands import stop

    with contextlib.redirect_stdout(io.StringIO()):
        stop(paths.find({"INTERACTD_HOME": str(home)}), now=True)
