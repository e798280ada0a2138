"""`interactd models | token | serve`: what this machine offers and opens."""

from __future__ import annotations

import argparse
import signal
import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from interactd import config, paths
from interactd.cli.client import ControlClient, connected
from interactd.cli.main import print_json


def models(args: argparse.Namespace) -> int:
    with connected(paths.find()) as client:
        found = client.call("models", refresh=args.refresh)
        auto = client.call("status")["auto"]
    if args.json:
        print_json({"models": found, "auto": auto})
        return 0
    if not sys.stdout.isatty():
        for model in found:
            print("\t".join((model["id"], "yes" if model["available"] else "no", model["detail"])))
        return 0
    table = Table("", "model", "how", box=None, header_style="dim", pad_edge=False)
    for model in sorted(found, key=lambda m: not m["available"]):
        mark = Text("ok", style="green") if model["available"] else Text("-", style="dim")
        table.add_row(mark, Text(model["id"], style="bold" if model.get("default") else ""), Text(model["detail"]))
    console = Console(highlight=False)
    console.print(table)
    console.print(f"\n[dim]auto:[/] {escape(auto)}")
    return 0


def token(args: argparse.Namespace) -> int:
    from interactd.faces.http import token as tokens

    value = tokens.renew(paths.find().make()) if args.new else tokens.load_or_create(paths.find().make())
    if args.json:
        print_json({"token": value, "file": str(paths.find().token_file)})
    else:
        print(value)
    return 0


def serve(args: argparse.Namespace) -> int:
    """Open the HTTP face in the daemon for as long as this command runs."""
    # A daemon that runs already has not seen this terminal's INTERACTD_SERVE_..., nor what was edited since.
    settings = config.load(paths.find()).serve
    wanted: dict[str, object] = {
        "host": args.host or settings.host,
        "port": settings.port if args.port is None else args.port,
        "allowed_hosts": [*settings.allowed_hosts, *(args.allow_host or [])],
        "allowed_origins": [*settings.allowed_origins, *(args.allow_origin or [])],
        "toolsets": [name.strip() for name in args.toolsets.split(",") if name.strip()] or None,
    }
    if args.no_token:
        wanted["token"] = False
    with connected(paths.find()) as client:
        opened = client.call("serve", **{name: value for name, value in wanted.items() if value is not None})
        _until_stopped(
            client,
            f"Streamable HTTP  {opened['url_mcp']}",
            f"SSE              {opened['url_sse']}",
            "no token asked for" if args.no_token else "Authorization    Bearer <interactd token>",
            "Ctrl-C closes it; sessions and running turns stay.",
        )
    return 0


def _until_stopped(client: ControlClient, *lines: str) -> None:
    """Print the lines; return on Ctrl-C or SIGTERM, raise DaemonUnavailable when the daemon goes away."""
    try:
        signal.signal(signal.SIGTERM, _interrupt)
        # A shell that starts us in the background lets us inherit that Ctrl-C is ignored.
        signal.signal(signal.SIGINT, _interrupt)
        # Whoever reads the last line may stop us at once.
        print(*lines, sep="\n", flush=True)
        while True:
            client.receive()
    except KeyboardInterrupt:
        print(file=sys.stderr)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
