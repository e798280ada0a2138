"""`interactd setup`: fetch the embedded model's weights, with a progress bar, so that it works offline from then on."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import threading
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from interactd import paths
from interactd.cli.main import print_json, report
from interactd.cli.sandbox import ensure_sandbox
from interactd.errors import InteractdError, NotSetUp
from interactd.models.embedded import setup as weights
from interactd.models.embedded.settings import EmbeddedSettings
from interactd.models.embedded.weights.table import lookup


def setup(args: argparse.Namespace) -> int:
    """Run `interactd setup`; returns the exit code."""
    settings = configured()
    entry = lookup(args.model or settings.model)
    console = Console(highlight=False, stderr=args.json)
    if importlib.util.find_spec("xllamacpp") is None:
        raise NotSetUp(
            "The runtime of the embedded model (xllamacpp) is not installed.",
            repair=f"Run: {sys.executable} -m pip install 'interactd[embedded]'",
        )
    if not args.yes and not args.json and sys.stdin.isatty() and not _is_there(entry.name, settings):
        answer = console.input(f"Fetch {entry.name} ({entry.bytes / 1e6:.0f} MB, {entry.licence})? [Y/n] ")
        if answer.strip().lower() in {"n", "no"}:
            return 1
    place = fetch(console, entry.name, settings)
    sandbox = ensure_sandbox(console)
    if args.json:
        print_json(
            {"model": entry.name, "sandbox": sandbox, "path": str(place), "bytes": entry.bytes, "sha256": entry.sha256}
        )
    else:
        # `embedded` alone can mean another one: see docs/embedded.md.
        named = f"embedded/{entry.name}" if args.model else "embedded"
        console.print(f"[green]ready[/] {entry.name} at {place}\nTry it: [bold]interactd chat -m {named}[/]")
    return 0


def ensure_weights(console: Console) -> int:
    """Fetch the configured weights if they are not here; returns an exit code, having said what went wrong."""
    settings = configured()
    entry = lookup(settings.model)
    there = _is_there(entry.name, settings)
    if not there:
        console.print(f"Fetching {entry.name} once: {entry.bytes / 1e6:.0f} MB, {entry.licence}, checked by SHA-256.")
    try:
        place = fetch(console, entry.name, settings, bar=not there)
    except InteractdError as error:
        return report(error, as_json=False)
    if there:
        console.print(f"Weights of {entry.name}: {place}", style="dim", markup=False, soft_wrap=True)
    return 0


def configured() -> EmbeddedSettings:
    """Return the embedded model's settings from the configuration file."""
    from interactd import config

    return EmbeddedSettings.of(config.load(paths.find()).embedded)


def fetch(console: Console, model: str, settings: EmbeddedSettings, *, bar: bool = True) -> Path:
    """Fetch with a bar on a terminal, plain lines on a pipe. Ctrl-C keeps what arrived.

    Raises:
        InteractdError: see `models.embedded.setup.run`.
    """
    cancel = weights.Cancel()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not (bar and console.is_terminal)) as bars:
        task = bars.add_task("looking", total=None)
        told: set[str] = set()

        def show(state: weights.Progress) -> None:
            bars.update(task, description=state.phase, completed=state.done, total=state.total)
            line = state.message or (f"{state.phase}: {state.source}" if state.phase == "downloading" else "")
            if line and line not in told:
                told.add(line)
                console.print(f"  {line}", style="dim", markup=False, soft_wrap=True)

        return _in_thread(model, show, settings, cancel)


def _in_thread(model: str, show: weights.Report, settings: EmbeddedSettings, cancel: weights.Cancel) -> Path:
    # In a thread, so that Ctrl-C reaches us at once and the download is stopped in order.
    done: list[Path] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            done.append(weights.run(model, show, settings=settings, cancel=cancel))
        except BaseException as error:  # noqa: BLE001 - carried over to the waiting thread
            failed.append(error)

    thread = threading.Thread(target=work, name="setup")
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.2)
    except KeyboardInterrupt:
        cancel.set()
        thread.join()
        raise
    if failed:
        raise failed[0]
    return done[0]


def _is_there(model: str, settings: EmbeddedSettings) -> bool:
    entry = lookup(model)
    folders = [paths.find().weights, settings.weights_folder()]
    return any(folder is not None and (folder / entry.file).exists() for folder in folders)
