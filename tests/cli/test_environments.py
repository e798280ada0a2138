"""`interactd environments` and `interactd credential`, as a person types them."""

from __future__ import annotations

import asyncio
import stat

import pytest

from cli.conftest import Ran, Terminal
from support.hosts import Host
from support.provider import Call, Reply

pytestmark = pytest.mark.anyio

SECRET = "s3cr3t-of-mine-0123456789"


async def typed(terminal: Terminal, *words: str, stdin: str) -> Ran:
    """Run a command with something on its stdin."""
    process = await terminal.start(*words, typed=True)
    async with asyncio.timeout(60):
        out, err = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())


async def test_a_secret_is_read_from_stdin_kept_unreadable_and_never_shown(terminal: Terminal) -> None:
    add = ("credential", "add", "github", "--domain", "api.github.com")
    made = await typed(terminal, *add, stdin=SECRET + "\n")
    assert made.code == 0, made.err
    assert made.out.startswith("github: kept in ")
    assert '{"domain": "api.github.com", "credential": "github"}' in made.out
    again = await typed(terminal, *add, stdin=SECRET)
    assert again.code == 1
    assert again.err.startswith("conflict: ")
    assert (await typed(terminal, *add, "--replace", stdin=SECRET + "x")).code == 0
    for words in (("credential",), ("credential", "list"), ("credential", "list", "--json"), ("credential", "--json")):
        ran = await terminal.run(*words)
        assert "github" in ran.out
        assert SECRET not in ran.out + ran.err + made.out + again.err
    (listed,) = (await terminal.run("credential", "list", "--json")).json
    assert listed["trusted_domains"] == ["api.github.com"]
    assert listed["created_at"].endswith("Z")
    for file in terminal.home.root.rglob("credentials.json"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    gone = await terminal.run("credential", "remove", "github")
    assert gone.out.startswith("github: forgotten")
    assert (await terminal.run("credential", "remove", "github")).err.startswith("not_found: ")
    assert (await terminal.run("credential")).out.startswith("No credentials.")


async def test_what_is_no_credential_is_refused_without_showing_the_secret(terminal: Terminal) -> None:
    for words, stdin, said in (
        (("bad id",), SECRET, "id"),
        (("a", "--domain", "*"), SECRET, "everybody"),
        (("a", "--domain", "http://x/y"), SECRET, "trusted_domains[0]"),
        (("a", "--type", "environment_variable"), SECRET, "trusted_domains"),
        (("a", "--header", "Content-Length"), SECRET, "header_name"),
        (("a",), "", "stdin is empty"),
        (("a",), "two\nlines of it", "one line"),
        (("a",), "x", "shorter"),
    ):
        ran = await typed(terminal, "credential", "add", *words, stdin=stdin)
        assert ran.code == 1
        assert said in ran.err
        assert SECRET not in ran.err + ran.out
        assert "Traceback" not in ran.err
    assert (await terminal.run("credential", "add", "a", "--type", "oauth9")).code == 2
    assert (await terminal.run("credential", "list", "--json")).json == []


async def test_what_is_no_environment_is_told_in_words(terminal: Terminal) -> None:
    assert (await terminal.run("environments")).out.startswith("No environments.")
    ran = await terminal.run("environments", "show", "env_00000000000000000000000000")
    assert ran.code == 1
    assert ran.err.startswith("not_found: ")
    assert (await terminal.run("environments", "list", "-n", "0")).code == 2
    bad = await terminal.run("environments", "delete", "--json", "-y", "env_zzz", "nonsense!")
    assert bad.code == 1
    assert [one["error"]["code"] for one in bad.json] == ["not_found", "invalid_argument"]


async def test_a_run_goes_on_when_its_host_is_gone_and_what_it_made_is_there(terminal: Terminal) -> None:
    gate = asyncio.Event()
    write = Call("write_file", {"path": "notes.md", "content": "# N"}, "c1")
    terminal.provider.script([Reply(["Let me ", gate, "write."], calls=[write]), "It is written."])
    keys = {"OPENAI_API_KEY": "sk-of-the-host", "OPENAI_BASE_URL": terminal.provider.base_url}
    first = terminal.home.host(real=True, **keys)

    def start(host: Host) -> tuple[str, str]:
        host.initialize()
        started = host.call("run_agent_background", input="Write notes.", model="openai/fake-model-1")
        fields = started["structuredContent"]
        assert fields["status"] in ("queued", "in_progress"), started
        return fields["session_id"], fields["interaction_id"]

    _, run = await asyncio.to_thread(start, first)
    await terminal.provider.received(1, timeout_s=60)
    first.close()
    gate.set()
    second = terminal.home.host(real=True)

    def fetch(host: Host) -> tuple[str, str]:
        host.initialize()
        done = host.call("get_interaction", interaction_id=run, wait_s=25)
        assert done["structuredContent"]["status"] == "completed", done
        assert "It is written." in done["content"][0]["text"]
        read = host.call("fetch_artifacts", interaction_id=run, name="notes.md")
        return done["structuredContent"]["environment_id"], read["content"][0]["text"]

    environment, text = await asyncio.to_thread(fetch, second)
    assert "# N" in text
    listed = (await terminal.run("environments", "--json")).json
    assert [one["id"] for one in listed["items"]] == [environment]
    shown = await terminal.run("environments", "show", environment[:20])
    assert shown.out.startswith(f"{environment}  active, last used just now")
    assert "3  notes.md" in shown.out
    assert (await terminal.run("environments", "show", environment, "--path", "../..")).code == 1
    kept = await terminal.run("environments", "delete", environment)
    assert "--yes" in kept.err
    gone = await terminal.run("environments", "delete", "-y", "--json", environment)
    assert gone.json[0]["environment_id"] == environment
    assert gone.json[0]["deleted_at"].endswith("Z")
    assert (await terminal.run("environments", "list")).out.startswith("No environments.")
