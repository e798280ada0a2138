"""What a host sees of the shim when nothing goes wrong, and when its own side is odd."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.hosts import ECHO, Home, eventually


def test_a_host_gets_the_answers_of_the_daemon(home: Home) -> None:
    host = home.host()
    assert host.initialize()["result"]["serverInfo"]["name"] == "echo"
    assert host.call("echo", text="hello") == {"text": "hello"}
    assert host.hang_up() == 0
    assert host.garbage == []


def test_what_the_daemon_prints_never_reaches_the_host(home: Home) -> None:
    host = home.host()
    assert host.call("print") == "printed"
    assert host.call("echo", n=1) == {"n": 1}
    assert host.garbage == []
    assert "this is not protocol" in home.paths.log_file.read_text()


def test_the_shim_imports_the_standard_library_only(home: Home) -> None:
    code = (
        "import sys; before = set(sys.modules)\n"
        "import interactd.__main__, interactd.shim.main, interactd.shim.relay, interactd.shim.stdio\n"
        "import interactd.shim.connect, interactd.shim.spawn, interactd.paths, interactd.envnames\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    out = subprocess.run([sys.executable, "-c", code], env=home.env, capture_output=True, text=True, check=True)
    names = out.stdout.split()
    strangers = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - {"interactd"}
    assert strangers == set()
    dear = {"asyncio", "pathlib", "dataclasses", "inspect", "typing", "subprocess", "logging", "hashlib"}
    assert dear & set(names) == set()


def test_odd_lines_do_not_break_the_relay(home: Home) -> None:
    host = home.host()
    for line in (
        b"\n",
        b"   \r\n",
        b"\xff\xfe not utf-8 \xc3\x28\n",
        b"{not json\n",
        b"[" * 50_000 + b"\n",
        b"null\n",
        b'"text"\n',
        b'{"jsonrpc":"2.0","id":' + b"9" * 5000 + b',"method":"x"}\n',
        b'{"jsonrpc":"2.0","id":1e999,"method":"ping"}\n',
    ):
        host.send(line)
    host.send(b'{"jsonrpc":"2.0","id":"crlf","method":"tools/call","params":{"name":"echo","arguments":{"a":1}}}\r\n')
    assert host.answer("crlf")["result"] == {"a": 1}


def test_a_message_may_come_in_pieces(home: Home) -> None:
    host = home.host()
    line = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "echo", "arguments": {}}})
    for byte in line.encode():
        host.send(bytes([byte]))
    host.send(b"\n")
    assert host.answer(7)["result"] == {}


def test_messages_of_many_megabytes_pass_in_both_directions(home: Home) -> None:
    host = home.host()
    text = "x" * 20_000_000
    assert host.call("echo", text=text) == {"text": text}
    assert len(host.call("big", size=20_000_000)) == 20_000_000


def test_a_message_beyond_the_limit_is_refused_and_the_next_one_is_not(home: Home) -> None:
    host = home.host()
    host.send(b'{"jsonrpc":"2.0","id":5,"method":"tools/call","params":"')
    piece = b"y" * 1024 * 1024
    for _ in range(66):
        host.send(piece)
    host.send(b'"}\n')
    assert "64 MiB" in host.answer(5)["error"]["message"]
    assert host.call("echo", n=2) == {"n": 2}


def test_a_host_that_reads_slowly_holds_up_the_daemon_and_not_the_shims_memory(home: Home) -> None:
    host = home.host()
    host.initialize()
    host.reading.clear()
    asked = [host.ask("tools/call", {"name": "big", "arguments": {"size": 4_000_000}}) for _ in range(30)]
    # The shim is stuck in a write by now; what it does not read stays with the daemon.
    eventually(lambda: _wchan_is_write(host.pid))
    assert _resident_kb(host.pid) < 60_000
    host.reading.set()
    assert all(len(host.answer(key)["result"]) == 4_000_000 for key in asked)


def test_a_thousand_calls_at_once_all_get_their_own_answer(home: Home) -> None:
    host = home.host()
    asked = {host.ask("tools/call", {"name": "echo", "arguments": {"n": n}}): n for n in range(1000)}
    assert all(host.answer(key)["result"] == {"n": n} for key, n in asked.items())


def test_requests_piped_in_are_answered_although_stdin_is_closed_already(home: Home) -> None:
    lines = [
        {"jsonrpc": "2.0", "id": n, "method": "tools/call", "params": {"name": "echo", "arguments": {"n": n}}}
        for n in range(3)
    ]
    done = subprocess.run(
        [sys.executable, str(ECHO), "mcp"],
        input="".join(json.dumps(line) + "\n" for line in lines)[:-1],  # the last line without its end
        env=home.env,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0
    assert sorted(json.loads(line)["id"] for line in done.stdout.splitlines()) == [0, 1, 2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_shim_cleanly_and_leaves_the_daemon(home: Home, number: signal.Signals) -> None:
    host = home.host()
    pid = host.call("pid")
    os.kill(host.pid, number)
    assert host.process.wait(5) == 0
    assert host.stderr == b""
    assert home.host().call("pid") == pid


def test_a_killed_shim_leaves_the_daemon_to_the_next(home: Home) -> None:
    host = home.host()
    pid = host.call("pid")
    host.ask("tools/call", {"name": "sleep", "arguments": {"s": 30}})
    host.process.kill()
    assert home.host().call("pid") == pid


def test_the_shim_ends_when_nobody_reads_its_answers(home: Home) -> None:
    process = subprocess.Popen(
        [sys.executable, str(ECHO), "mcp"], env=home.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
        process.stdin.flush()
        assert b"result" in process.stdout.readline()
        call = {"name": "sleep", "arguments": {"s": 20}}
        process.stdin.write(
            json.dumps({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call}).encode() + b"\n"
        )
        process.stdin.flush()
        process.stdout.close()
        process.stdin.close()
        assert process.wait(4) == 0


def test_several_protocol_eras_pass_side_by_side(home: Home) -> None:
    legacy, modern = home.host(), home.host()
    assert legacy.initialize("2024-11-05")["result"]["protocolVersion"] == "2024-11-05"
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
    key = modern.ask("server/discover", {"_meta": meta})
    assert "result" in modern.answer(key)
    assert modern.call("seen") == ["server/discover", "tools/call"]


def test_a_batch_is_answered_message_by_message(home: Home) -> None:
    host = home.host()
    host.send([{"jsonrpc": "2.0", "id": n, "method": "ping"} for n in (1, 2)])
    assert host.answer(1)["result"] == {}
    assert host.answer(2)["result"] == {}


def test_the_hello_carries_allowed_names_of_the_environment_only(home: Home) -> None:
    home.paths.make()
    home.paths.config_file.write_text('[providers.groq]\nkind = "openai-chat"\napi_key_env = "GROQ_API_KEY"\n')
    host = home.host(OPENAI_API_KEY="sk-one", GROQ_API_KEY="gsk-two", AWS_SECRET_ACCESS_KEY="never")
    hello = host.call("hello")
    assert hello["env"] == {"OPENAI_API_KEY": "sk-one", "GROQ_API_KEY": "gsk-two"}
    assert hello["pid"] == host.pid
    assert Path(hello["cwd"]) == home.root.parent
    environ = host.call("environ")
    assert "sk-one" not in json.dumps(environ)
    assert "never" not in json.dumps(environ)
    assert (environ["cwd"], environ["umask"]) == (str(home.root.parent), "77")
    assert "sk-one" not in home.paths.log_file.read_text()


def test_wrong_usage_says_so_on_stderr(home: Home) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "interactd", "mcp", "--nonsense"], env=home.env, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"--nonsense" in done.stderr


def _resident_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise AssertionError("no VmHWM")


def _wchan_is_write(pid: int) -> bool:
    """Say whether a thread of the process is in write(2) to a pipe that is full."""
    states = [(task / "syscall").read_text().split()[:2] for task in Path(f"/proc/{pid}/task").iterdir()]
    return ["1", "0x1"] in states
