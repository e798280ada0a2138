"""The product's own application behind the product's own shim, killed in the middle."""

from __future__ import annotations

import os
import signal
import sys

from support.hosts import Home, eventually

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "raw", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


def test_a_legacy_client_keeps_its_connection_over_a_killed_daemon(home: Home) -> None:
    host = home.host(real=True)
    assert host.initialize()["result"]["serverInfo"]["name"] == "interactd"
    before = _tools(host.answer(host.ask("tools/list"))["result"])
    pid = home.ready()
    os.kill(pid, signal.SIGKILL)
    after = _tools(host.answer(host.ask("tools/list"))["result"])
    assert before == after
    assert "send_turn" in after
    assert home.ready() != pid
    assert host.garbage == []
    assert host.hang_up() == 0


def test_a_modern_client_keeps_its_connection_over_a_killed_daemon(home: Home) -> None:
    host = home.host(real=True)
    assert "result" in host.answer(host.ask("server/discover", {"_meta": META}))
    os.kill(home.ready(), signal.SIGKILL)
    answer = host.answer(host.ask("tools/list", {"_meta": META}))
    assert "send_turn" in _tools(answer["result"])
    assert host.garbage == []


def test_a_wrong_configuration_is_an_error_that_names_file_and_line(home: Home) -> None:
    home.paths.make()
    home.paths.config_file.write_text("[daemon]\nidle_exit_s = 'soon'\n")
    host = home.host(real=True)
    error = host.answer(host.ask("initialize"))["error"]
    assert str(home.paths.config_file) in error["message"]
    assert "idle_exit_s" in error["message"]
    home.paths.config_file.write_text("[daemon]\nidle_exit_s = 60\n")
    # The shim answers from its last failure for a second, and then tries again.
    eventually(lambda: "result" in host.initialize())
    assert "send_turn" in _tools(host.answer(host.ask("tools/list"))["result"])


def test_in_process_serves_the_host_and_whoever_else_comes(home: Home) -> None:
    alone = home.host_of([sys.executable, "-m", "interactd", "mcp", "--in-process"])
    assert alone.initialize()["result"]["serverInfo"]["name"] == "interactd"
    assert home.ready() == alone.pid
    other = home.host(real=True)
    other.initialize()
    assert "send_turn" in _tools(other.answer(other.ask("tools/list"))["result"])
    assert alone.garbage == []
    assert alone.hang_up() == 0
    eventually(lambda: home.record().get("left"))
    assert "send_turn" in _tools(other.answer(other.ask("tools/list"))["result"])
    assert home.ready() != alone.pid


def _tools(result: dict[str, list[dict[str, str]]]) -> list[str]:
    return [tool["name"] for tool in result["tools"]]
