"""The local sinks: a command of the user's with the payload on its stdin, and a notification on the desktop.

A command runs as the user, outside any sandbox, with a small environment; it and everything it started are killed when
its time is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from interactd.durable.webhooks.sending import KEPT_BYTES, Answer
from interactd.errors import InvalidArgument, SandboxUnavailable

MAX_ARGV_BYTES = 64 * 1024
MAX_TIMEOUT_S = 300
_OUTPUT_BYTES = 64 * 1024
_KILL_S = 2.0
_LOOK_S = 0.2
_DESKTOP_S = 10.0
_PASSED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SYSTEMROOT", "USERPROFILE")
_SESSION = ("DISPLAY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR", "XAUTHORITY")
Which = Callable[[str], str | None]


def check_command(command: Any, *, shell: bool) -> list[str]:
    """Return the words to run: a list as it is; one text for the shell, where that was asked for.

    Raises:
        InvalidArgument: it is neither, or its program is not there.
    """
    if shell:
        if not isinstance(command, str) or not command.strip() or "\0" in command:
            raise InvalidArgument("command: with shell, expected one text for the shell", field="command")
        return ["cmd", "/c", command] if sys.platform == "win32" else ["/bin/sh", "-c", command]
    if isinstance(command, str):
        raise InvalidArgument(
            "command: expected a list of words, got one text",
            repair="Give the program and its arguments apart, or say shell as well if a shell is meant.",
            field="command",
        )
    words = cast("list[Any]", command) if isinstance(command, list) else []
    if not words or not all(isinstance(word, str) and "\0" not in word for word in words) or not words[0]:
        raise InvalidArgument("command: expected a list of words, the program first", field="command")
    if sum(len(word.encode("utf-8", "replace")) for word in words) > MAX_ARGV_BYTES:
        raise InvalidArgument(f"command: more than {MAX_ARGV_BYTES:,} bytes", field="command")
    if shutil.which(words[0]) is None:
        raise InvalidArgument(
            f"command: there is no program {words[0]!r:.80} that can be run",
            repair="Give its whole path, or make it executable.",
            field="command",
        )
    return words


async def run(argv: Sequence[str], payload: str, facts: Mapping[str, str], timeout_s: float) -> Answer:
    """Run a command with the payload on its stdin. Exit code 0 is a delivery; `facts` go into its environment."""
    env = {name: os.environ[name] for name in _PASSED if name in os.environ} | dict(facts)
    return await _run(argv, payload.encode() + b"\n", env, timeout_s)


def notifier(which: Which = shutil.which, platform: str = sys.platform) -> str | None:
    """Return which program shows notifications on this machine: `None` when there is none."""
    names = {"darwin": ("osascript",), "win32": ("powershell", "pwsh")}.get(platform, ("notify-send",))
    return next((name for name in names if which(name)), None)


def check_desktop(which: Which = shutil.which, platform: str = sys.platform) -> None:
    """Raises: SandboxUnavailable: notifications cannot be shown here."""
    if notifier(which, platform) is None:
        raise SandboxUnavailable(
            "desktop: this machine has no program that shows notifications",
            repair="Install libnotify (the notify-send command) and try again, or use a command or a uri instead.",
            field="desktop",
        )


def notification(payload: str) -> tuple[str, str]:
    """Return title and text of the notification of a payload."""
    body: dict[str, Any] = json.loads(payload)
    data: dict[str, Any] = body.get("data") or {}
    title = f"interactd: {str(body.get('type')).replace('.', ' ').replace('_', ' ')}"
    lines = [str(data.get("id") or "")]
    if data.get("error_message"):
        lines.append(str(data["error_message"])[:200])
    return title, "\n".join(line for line in lines if line)


def desktop_argv(program: str, title: str, text: str) -> tuple[list[str], bytes]:
    """Return the words to run and what goes to stdin. Title and text are only ever arguments or data, never code."""
    if program == "notify-send":
        return ["notify-send", "--app-name=interactd", "--", title, text], b""
    if program == "osascript":
        script = "on run argv\ndisplay notification (item 2 of argv) with title (item 1 of argv)\nend run"
        return ["osascript", "-e", script, "--", title, text], b""
    script = (
        "$m = [Console]::In.ReadToEnd() | ConvertFrom-Json;"
        "[Windows.UI.Notifications.ToastNotificationManager, Windows.UI.Notifications, ContentType=WindowsRuntime]"
        " > $null;"
        "$x = [Windows.UI.Notifications.ToastNotificationManager]::GetTemplateContent(1);"
        "$t = $x.GetElementsByTagName('text');"
        "$t.Item(0).InnerText = $m.title; $t.Item(1).InnerText = $m.text;"
        "[Windows.UI.Notifications.ToastNotificationManager]::CreateToastNotifier('interactd')"
        ".Show([Windows.UI.Notifications.ToastNotification]::new($x))"
    )
    return [program, "-NoProfile", "-Command", script], json.dumps({"title": title, "text": text}).encode()


async def show(payload: str, which: Which = shutil.which, platform: str = sys.platform) -> Answer:
    """Show a notification."""
    program = notifier(which, platform)
    if program is None:
        return Answer(False, error="this machine has no program that shows notifications (notify-send)")
    argv, stdin = desktop_argv(program, *notification(payload))
    env = {name: os.environ[name] for name in (*_PASSED, *_SESSION) if name in os.environ}
    if platform.startswith("linux") and "XDG_RUNTIME_DIR" not in env:
        # A daemon that was started by cron or over ssh has none, and the desktop's bus is there all the same.
        env["XDG_RUNTIME_DIR"] = f"/run/user/{os.getuid()}"
    if platform.startswith("linux") and "DBUS_SESSION_BUS_ADDRESS" not in env:
        env["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path={env['XDG_RUNTIME_DIR']}/bus"
    return await _run([which(argv[0]) or argv[0], *argv[1:]], stdin, env, _DESKTOP_S)


async def _run(argv: Sequence[str], stdin: bytes, env: Mapping[str, str], timeout_s: float) -> Answer:
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(env),
            cwd=home if (home := env.get("HOME")) and Path(home).is_dir() else None,
            start_new_session=sys.platform != "win32",
        )
    except (OSError, ValueError) as error:
        return Answer(False, error=f"{argv[0]} could not be run ({getattr(error, 'strerror', None) or error})")
    output = bytearray()
    talking = asyncio.create_task(_talk(process, stdin, output))
    code: int | None = None
    try:
        async with asyncio.timeout(timeout_s):
            code = await _ended(process, talking)
    except TimeoutError:
        code = None
    finally:
        talking.cancel()
        await asyncio.gather(talking, return_exceptions=True)
        await _kill(process)
    if code is None:
        error = f"the command took longer than {timeout_s:g} s and was killed"
        return Answer(False, answer=_text(output), error=error)
    error = None if code == 0 else f"the command ended with exit code {code}"
    return Answer(code == 0, None if code < 0 else code, _text(output), error)


async def _ended(process: asyncio.subprocess.Process, talking: asyncio.Task[None]) -> int:
    """Return the exit code when the command itself has ended: what it left behind may hold its output open."""
    waiting = asyncio.ensure_future(process.wait())
    try:
        while process.returncode is None:
            await asyncio.wait({waiting, talking} if not talking.done() else {waiting}, timeout=_LOOK_S)
        if not talking.done():
            await asyncio.wait({talking}, timeout=_LOOK_S)
    finally:
        waiting.cancel()
    return process.returncode


async def _talk(process: asyncio.subprocess.Process, stdin: bytes, output: bytearray) -> None:
    await asyncio.gather(_feed(process, stdin), _read(process, output))


async def _feed(process: asyncio.subprocess.Process, data: bytes) -> None:
    assert process.stdin is not None
    # A command that does not care for its stdin may close it, or be gone.
    with contextlib.suppress(ConnectionError, OSError):
        process.stdin.write(data)
        await process.stdin.drain()
    with contextlib.suppress(ConnectionError, OSError):
        process.stdin.close()


async def _read(process: asyncio.subprocess.Process, output: bytearray) -> None:
    assert process.stdout is not None
    while data := await process.stdout.read(4096):
        if len(output) < _OUTPUT_BYTES:
            output += data


async def _kill(process: asyncio.subprocess.Process) -> None:
    """Kill what is left of the command: its whole process group, whether the command itself has ended or not."""
    if sys.platform == "win32":
        if process.returncode is None:
            killer = await asyncio.create_subprocess_exec("taskkill", "/T", "/F", "/PID", str(process.pid))
            await killer.wait()
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.returncode is None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_KILL_S):
                await process.wait()
    # The pipe may still be held by a child that made a session of its own; we do not wait for that one.
    transport: Any = getattr(process, "_transport", None)
    if transport is not None:
        transport.close()


def _text(output: bytearray) -> str:
    return bytes(output[:KEPT_BYTES]).decode("utf-8", "replace")
