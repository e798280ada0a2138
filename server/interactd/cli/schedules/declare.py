"""What `interactd triggers` and `interactd webhooks` take."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from interactd.cli.subcommands import add

if TYPE_CHECKING:
    from interactd.cli.subcommands import Commands


def triggers(commands: Commands) -> None:
    """Declare list, show, create, edit, run, pause, resume, delete and executions."""
    listing = add(commands, "list", "list them with their next times (the same as no command)")
    listing.add_argument("--status", choices=("active", "paused", "error", "completed"), default=argparse.SUPPRESS)
    _page(listing)
    add(commands, "show", "show one: what it runs, when, and how it does").add_argument("id", help=_ID)
    create = add(
        commands, "create", "run something at its times: interactd triggers create '0 9 * * 1-5' 'Read my mail'"
    )
    create.add_argument("schedule", help='five cron fields, @daily and the like, "every 2h", or "at 2026-12-01T09:00"')
    create.add_argument("input", help="the task; - reads it from stdin")
    _of_trigger(create)
    create.add_argument("--paused", action="store_true", help="do not start by itself yet")
    edit = add(commands, "edit", "change anything of one")
    edit.add_argument("id", help=_ID)
    edit.add_argument("--schedule", help="as for create")
    edit.add_argument("--input", help="the task; - reads it from stdin")
    _of_trigger(edit)
    add(commands, "run", "run one now, also while it is paused").add_argument("id", help=_ID)
    for name, text in (
        ("pause", "start nothing more until it is resumed; what runs goes on"),
        ("resume", "start again from now on; also after too many failures"),
    ):
        add(commands, name, text).add_argument("ids", nargs="+", metavar="id", help=_ID)
    _delete(add(commands, "delete", "delete triggers; what they ran stays on record"))
    ran = add(commands, "executions", "list what triggers ran, newest first")
    ran.add_argument("id", nargs="?", help="of one trigger, also of a deleted one")
    ran.add_argument(
        "--status",
        choices=("queued", "in_progress", "completed", "failed", "skipped", "timed_out"),
        default=argparse.SUPPRESS,
    )
    _page(ran)


def _of_trigger(sub: argparse.ArgumentParser) -> None:
    taker = sub.add_mutually_exclusive_group()
    taker.add_argument("-a", "--agent", help="who does it (default: antigravity)")
    taker.add_argument("-m", "--model", help="a model instead of an agent: provider/name, or auto")
    sub.add_argument("-z", "--time-zone", metavar="ZONE", help="such as Europe/Berlin (default: this machine's)")
    sub.add_argument("--name", help="what to call it")
    sub.add_argument(
        "-s", "--session", metavar="ID", help="go on in this session; same: in one of its own; new (default)"
    )
    sub.add_argument(
        "-e", "--environment", metavar="ID", help="where the agent works (default: one that its runs share)"
    )
    sub.add_argument("--fresh", action="store_true", default=None, help="a fresh environment for every run")
    sub.add_argument("--missed", choices=("skip", "once"), help="times at which no daemon ran (default: skip)")
    sub.add_argument("--overlap", choices=("skip", "queue"), help="when the last run has not ended (default: skip)")
    sub.add_argument("--failures", type=int, metavar="N", help="so many in a row stop it (default 5; 0: never)")
    sub.add_argument("--timeout", metavar="TIME", help="how long one run may take: 10m (default), 2h")
    sub.add_argument("--ttl", metavar="TIME", help="how long a run's session is kept: 7d (default), forever")
    sub.add_argument("--title", help="title of the sessions")
    sub.add_argument("--system", metavar="TEXT", help="system instruction of the sessions")
    sub.add_argument("--budget", action="append", metavar="KEY=N", help="usd, tokens, steps or seconds of one run")
    sub.add_argument("--label", action="append", metavar="KEY=VALUE", help="for the sessions")


def webhooks(commands: Commands) -> None:
    """Declare list, show, create, edit, enable, disable, ping, rotate, delete, deliveries and redeliver."""
    _page(add(commands, "list", "list them and how their deliveries do (the same as no command)"))
    add(commands, "show", "show one").add_argument("id", help=_ID)
    create = add(commands, "create", "have a URL, a command or the desktop told of what happens")
    target = create.add_mutually_exclusive_group(required=True)
    target.add_argument("--uri", help="https://... ; gets a signed POST")
    target.add_argument("--desktop", action="store_true", help="show a notification")
    target.add_argument("--shell", metavar="TEXT", help="run this in a shell, with the payload on its stdin")
    target.add_argument(
        "--command", nargs=argparse.REMAINDER, metavar="WORD", dest="words", help="run this program (comes last)"
    )
    _of_webhook(create)
    create.add_argument("--interaction", metavar="ID", help="tell of this one only, also if it has ended already")
    edit = add(commands, "edit", "change one")
    edit.add_argument("id", help=_ID)
    edit.add_argument("--uri", help="a new URL")
    edit.add_argument("--shell", metavar="TEXT", help="a new text for the shell")
    edit.add_argument("--command", nargs=argparse.REMAINDER, metavar="WORD", dest="words", help="a new program")
    _of_webhook(edit)
    add(commands, "enable", "deliver again").add_argument("ids", nargs="+", metavar="id", help=_ID)
    add(commands, "disable", "deliver nothing; what waits is given up").add_argument(
        "ids", nargs="+", metavar="id", help=_ID
    )
    add(commands, "ping", "send a test event and say how it went").add_argument("id", help=_ID)
    rotate = add(commands, "rotate", "make a new signing secret; the old one signs as well for 24 hours")
    rotate.add_argument("id", help=_ID)
    rotate.add_argument("--now", action="store_true", help="the old one is void at once")
    _delete(add(commands, "delete", "delete webhooks with their secrets and deliveries"))
    log = add(commands, "deliveries", "list deliveries and their attempts, newest first")
    log.add_argument("id", nargs="?", help="of one webhook")
    log.add_argument("--status", choices=("pending", "delivered", "failed"), default=argparse.SUPPRESS)
    _page(log)
    add(commands, "redeliver", "deliver an event again, under its old id").add_argument(
        "ids", nargs="+", metavar="id", help="of a delivery (msg_...)"
    )


def _of_webhook(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--event", action="append", metavar="EVENT", help="interaction.completed ... (default: all)")
    sub.add_argument("--name", help="what to call it")
    scope = sub.add_mutually_exclusive_group()
    scope.add_argument(
        "--background-only", action="store_true", default=None, help="leave out turns that somebody waits for"
    )
    scope.add_argument("--all-turns", dest="background_only", action="store_false", default=None, help="the opposite")
    sub.add_argument("--allow-local", action="store_true", default=None, help="the URL may be on this machine")
    sub.add_argument("--timeout", metavar="TIME", help="how long a command may take: 30s (default), at most 5m")
    sub.add_argument("--metadata", metavar="JSON", help="an object that comes with every payload")


_ID = "a unique prefix is enough"


def _page(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("-n", "--limit", type=_limit, default=argparse.SUPPRESS)
    sub.add_argument("--cursor", default=argparse.SUPPRESS, help="go on from an earlier page")


def _delete(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("ids", nargs="+", metavar="id", help=_ID)
    sub.add_argument("-y", "--yes", action="store_true", help="do not ask")


def _limit(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if not 1 <= number <= 200:
        raise argparse.ArgumentTypeError("expected a number from 1 to 200")
    return number
