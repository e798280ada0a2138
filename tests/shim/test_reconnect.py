"""The daemon dies in the middle and the same stdio connection goes on."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from support.hosts import Home, eventually


def test_a_killed_daemon_is_replaced_behind_the_same_connection(home: Home) -> None:
    host = home.host()
    host.initialize()
    first = host.call("pid")
    began = time.monotonic()
    os.kill(first, signal.SIGKILL)
    second = host.call("pid")
    assert second != first
    assert time.monotonic() - began < 5
    assert len([m for m in host.messages if "serverInfo" in str(m)]) == 1  # the repeated handshake stays inside
    assert host.garbage == []


def test_the_next_daemon_hears_the_handshake_before_anything_else(home: Home) -> None:
    host = home.host()
    host.initialize()
    host.answer(host.ask("logging/setLevel", {"level": "debug"}))
    host.answer(host.ask("resources/subscribe", {"uri": "a://1"}))
    host.answer(host.ask("resources/subscribe", {"uri": "a://2"}))
    host.answer(host.ask("resources/unsubscribe", {"uri": "a://1"}))
    os.kill(host.call("pid"), signal.SIGKILL)
    assert host.call("seen") == [
        "initialize",
        "notifications/initialized",
        "logging/setLevel",
        "resources/subscribe",
        "tools/call",
    ]


def test_a_request_in_flight_is_asked_again_under_the_same_id_and_connection(home: Home, tmp_path: Path) -> None:
    host = home.host()
    host.initialize()
    before = host.call("hello")
    assert host.call("die_once", mark=str(tmp_path / "mark")) == "alive"
    after = host.call("hello")
    assert before["connection"] == after["connection"]


def test_many_requests_in_flight_are_all_answered_once(home: Home) -> None:
    host = home.host()
    host.initialize()
    first = host.call("pid")
    text = "z" * 200_000
    asked = [host.ask("tools/call", {"name": "sleep", "arguments": {"s": 0.3, "t": text}}) for _ in range(50)]
    os.kill(first, signal.SIGKILL)
    assert all(host.answer(key)["result"] == "slept" for key in asked)
    host.call("pid")
    answers = [m["id"] for m in host.messages if m.get("result") == "slept"]
    assert sorted(answers) == sorted(set(answers))


def test_an_answer_cut_in_the_middle_is_not_shown_to_the_host(home: Home) -> None:
    host = home.host()
    host.initialize()
    pid = host.call("pid")
    host.reading.clear()  # the answer is larger than every buffer on its way
    key = host.ask("tools/call", {"name": "big", "arguments": {"size": 8_000_000}})
    time.sleep(0)
    eventually(lambda: _sent_much(pid))
    os.kill(pid, signal.SIGKILL)
    host.reading.set()
    assert len(host.answer(key)["result"]) == 8_000_000
    assert host.garbage == []


def test_a_request_that_kills_every_daemon_is_given_up_after_three(home: Home) -> None:
    host = home.host()
    host.initialize()
    error = host.answer(host.ask("tools/call", {"name": "die"}), within_s=60)["error"]
    assert "three times" in error["message"]
    assert host.call("echo", n=1) == {"n": 1}


def test_a_cancelled_request_is_not_asked_again(home: Home) -> None:
    host = home.host()
    host.initialize()
    key = host.ask("tools/call", {"name": "sleep", "arguments": {"s": 60}})
    host.tell("notifications/cancelled", {"requestId": key})
    os.kill(host.call("pid"), signal.SIGKILL)
    assert host.call("seen") == ["initialize", "notifications/initialized", "tools/call"]


def test_a_modern_client_goes_on_without_a_handshake(home: Home, tmp_path: Path) -> None:
    host = home.host()
    host.answer(host.ask("server/discover"))
    assert host.call("die_once", mark=str(tmp_path / "mark")) == "alive"
    assert host.call("seen") == ["tools/call", "tools/call"]


def test_an_initialize_in_flight_is_asked_again_and_answered_once(home: Home) -> None:
    host = home.host()
    host.call("echo")
    pid = home.ready()
    os.kill(pid, signal.SIGSTOP)
    key = host.ask("initialize", {"protocolVersion": "2025-06-18"})
    os.kill(pid, signal.SIGKILL)
    assert host.answer(key)["result"]["protocolVersion"] == "2025-06-18"
    host.call("echo")
    assert len([m for m in host.messages if m.get("id") == key]) == 1


def test_questions_of_an_earlier_daemon_are_not_answered_to_the_next(home: Home) -> None:
    host = home.host()
    host.initialize()
    pid = host.call("pid")
    lost = host.ask("tools/call", {"name": "ask", "arguments": {"id": 0}})
    question = host.wait(lambda m: m.get("method") == "roots/list")
    assert question["id"] == 0
    host.tell("notifications/cancelled", {"requestId": lost})
    os.kill(pid, signal.SIGKILL)
    host.call("pid")
    again = host.ask("tools/call", {"name": "ask", "arguments": {"id": 0}})
    second = host.wait(lambda m: m.get("method") == "roots/list" and m["id"] != 0)
    host.send({"jsonrpc": "2.0", "id": question["id"], "result": "for the dead"})
    host.send({"jsonrpc": "2.0", "id": second["id"], "result": "for the living"})
    assert host.answer(again)["result"] == "for the living"
    assert not [seen for seen in host.call("seen") if "stray" in seen]


def test_a_daemon_that_was_told_to_leave_is_not_started_again_before_it_is_needed(home: Home) -> None:
    host = home.host()
    host.initialize()
    pid = host.call("pid")
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: home.daemons() == [])
    assert host.call("pid") != pid


def test_killed_again_and_again_while_calls_run(home: Home) -> None:
    host = home.host()
    host.initialize()
    answered: list[Any] = []
    for round_ in range(4):
        asked = [host.ask("tools/call", {"name": "echo", "arguments": {"n": n}}) for n in range(20)]
        os.kill(home.ready(), signal.SIGKILL)
        answered += [host.answer(key)["result"]["n"] for key in asked]
        assert len(answered) == 20 * (round_ + 1)
    assert home.host().call("pid") == host.call("pid")


def _sent_much(pid: int) -> bool:
    """Say whether the daemon has written more than a pipe and a socket hold together."""
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        if line.startswith("wchar:"):
            return int(line.split()[1]) > 400_000
    return False
