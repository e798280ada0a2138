"""How long a host waits: start to `initialize`, a tool call, and what a host costs in memory.

    python tests/bench/initialize.py [--rounds 7] [--calls 300] [--json]

Everything is measured in one run, interleaved, with the same raw client: a bare one-tool server of the official SDK
on stdio, interactd through a warm shim, in-process, and with no daemon yet. Medians, minima and ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

Json = dict[str, Any]
BARE = """
from mcp.server.mcpserver import MCPServer
server = MCPServer("bare", log_level="WARNING")
@server.tool()
def echo(text: str) -> str:
    return text
server.run("stdio")
"""
SHIM = [sys.executable, "-m", "interactd", "mcp"]
COMMANDS = {"bare SDK server": [sys.executable, "-c", BARE], "warm shim": SHIM, "in-process": [*SHIM, "--in-process"]}
TARGET_INITIALIZE = 10.0
TARGET_CALL = 1.5


class Client:
    """The smallest possible host: blocking, one request at a time."""

    def __init__(self, command: list[str], home: str) -> None:
        # The key is never used: sessions are made, no model is called.
        env = {**os.environ, "INTERACTD_HOME": home, "OPENAI_API_KEY": "sk-not-used"}
        self.process = subprocess.Popen(
            command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._next = 0

    def request(self, method: str, params: Json) -> Json:
        """Send a request, return its answer; notifications in between are dropped."""
        assert self.process.stdin
        assert self.process.stdout
        self._next += 1
        line = {"jsonrpc": "2.0", "id": self._next, "method": method, "params": params}
        self.process.stdin.write(json.dumps(line).encode() + b"\n")
        self.process.stdin.flush()
        while True:
            answer: Json = json.loads(self.process.stdout.readline())
            if answer.get("id") == self._next:
                assert "result" in answer, answer
                return answer["result"]

    def initialize(self) -> None:
        """Legacy handshake, as most hosts do it."""
        about = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
        self.request("initialize", about)
        assert self.process.stdin
        self.process.stdin.write(b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
        self.process.stdin.flush()

    def close(self) -> None:
        """Close stdin and wait for the end."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(30)


def start_ms(command: list[str], home: str) -> float:
    """Return milliseconds from spawn to the answer to `initialize`."""
    began = time.perf_counter()
    client = Client(command, home)
    client.initialize()
    took = (time.perf_counter() - began) * 1000
    client.close()
    return took


def calls_ms(client: Client, tool: str, arguments: Json, count: int) -> list[float]:
    """Return the milliseconds of `count` calls, one after another."""
    out: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        result = client.request("tools/call", {"name": tool, "arguments": arguments})
        out.append((time.perf_counter() - began) * 1000)
        assert not result.get("isError"), result
    return out


def memory_kb(pid: int) -> dict[str, int]:
    """Return RSS and PSS in kB (Linux only; empty elsewhere)."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return {}
    found = {line.split()[0].rstrip(":"): int(line.split()[1]) for line in text.splitlines()[1:] if "kB" in line}
    return {"rss": found["Rss"], "pss": found["Pss"]}


def stop(home: str) -> None:
    """Stop the home's daemon."""
    env = {**os.environ, "INTERACTD_HOME": home}
    subprocess.run([sys.executable, "-m", "interactd", "stop", "--now"], env=env, capture_output=True, check=True)


def measure(rounds: int, calls: int, folder: str) -> Json:
    """Run everything and return the figures."""
    warm, alone, cold = (str(Path(folder) / name) for name in ("warm", "alone", "cold"))
    homes = {"bare SDK server": warm, "warm shim": warm, "in-process": alone}
    keeper = Client(SHIM, warm)
    keeper.initialize()
    starts: dict[str, list[float]] = {name: [] for name in [*COMMANDS, "cold shim"]}
    for name, command in COMMANDS.items():
        start_ms(command, homes[name])  # page cache and .pyc files, for all alike
    for _ in range(rounds):
        for name, command in COMMANDS.items():
            starts[name].append(start_ms(command, homes[name]))
        starts["cold shim"].append(start_ms(SHIM, cold))
        stop(cold)
    bare = Client(COMMANDS["bare SDK server"], warm)
    bare.initialize()
    tools: dict[str, tuple[Client, str, Json]] = {
        "bare echo": (bare, "echo", {"text": "x"}),
        "list_sessions": (keeper, "list_sessions", {}),
        "create_session": (keeper, "create_session", {"model": "openai/gpt-5"}),
        "server_status": (keeper, "server_status", {}),
    }
    trips: dict[str, list[float]] = {name: [] for name in tools}
    refused: dict[str, str] = {}
    for _ in range(5):
        for name, (client, tool, arguments) in tools.items():
            try:
                trips[name] += calls_ms(client, tool, arguments, calls // 5)
            except AssertionError as error:  # a tool that needs a model where there is none
                refused[name] = str(error)[:200]
    daemon = json.loads((Path(warm) / "state" / "daemon.json").read_text())["pid"]
    memory = {"bare SDK server": bare.process.pid, "shim (per host)": keeper.process.pid, "daemon": daemon}
    out: Json = {
        "start_ms": {name: summary(values) for name, values in starts.items()},
        "call_ms": {name: summary(values) for name, values in trips.items() if values},
        "memory_kb": {name: memory_kb(pid) for name, pid in memory.items()},
        "refused": refused,
    }
    bare.close()
    keeper.close()
    stop(warm)
    median = {name: each["median"] for name, each in out["start_ms"].items()}
    trip = {name: each["median"] for name, each in out["call_ms"].items()}
    out["ratios"] = {
        "initialize: bare / warm shim": round(median["bare SDK server"] / median["warm shim"], 1),
        "initialize: in-process / warm shim": round(median["in-process"] / median["warm shim"], 1),
        **{f"call: {n} / bare echo": round(trip[n] / trip["bare echo"], 2) for n in trip if n != "bare echo"},
    }
    return out


def summary(values: list[float]) -> Json:
    """Return median, minimum, the 90th percentile and the count."""
    ordered = sorted(values)
    return {
        "median": round(statistics.median(ordered), 3),
        "min": round(ordered[0], 3),
        "p90": round(ordered[int(len(ordered) * 0.9)], 3),
        "n": len(ordered),
    }


def main() -> int:
    """Print the table, or JSON; exit 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="interactd-bench-")
    try:
        found = measure(args.rounds, args.calls, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        for title, unit in (("start_ms", "spawn to initialize"), ("call_ms", "one tool call")):
            print(f"{unit:<22} {'median':>9} {'min':>9} {'p90':>9}  ms")
            for name, each in found[title].items():
                print(f"  {name:<20} {each['median']:>9.2f} {each['min']:>9.2f} {each['p90']:>9.2f}")
        for name, each in found["memory_kb"].items():
            print(f"memory {name:<20} " + ", ".join(f"{k} {v / 1024:.1f} MB" for k, v in each.items()))
        for name, each in [*found["ratios"].items(), *found["refused"].items()]:
            print(f"{name}: {each}")
    fast = found["ratios"]["initialize: bare / warm shim"] >= TARGET_INITIALIZE
    near = found["ratios"].get("call: list_sessions / bare echo", 99) <= TARGET_CALL
    verdict = {f"initialize {TARGET_INITIALIZE:g}x": fast, f"call {TARGET_CALL:g}x": near}
    print("; ".join(f"{name} {'met' if met else 'MISSED'}" for name, met in verdict.items()), file=sys.stderr)
    return 0 if fast and near else 1


if __name__ == "__main__":
    sys.exit(main())
