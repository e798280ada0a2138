"""docs/cli.md, made from the parser: `python -m interactd.cli.reference > docs/cli.md`; a test holds the two equal."""

from __future__ import annotations

import argparse
import os

from interactd.cli.main import build_parser


def page() -> str:
    """Return the whole page as Markdown."""
    os.environ["COLUMNS"] = "100"
    parser = build_parser()
    parser.formatter_class = argparse.HelpFormatter
    parts = [
        "# Command line",
        "",
        "Made from the parser (`python -m interactd.cli.reference`). Every command that prints data takes `--json`;",
        "tables and colours appear only on a terminal, a pipe gets tab-separated lines. Exit codes: 0 done, 1 an error",
        "(with what to do next on stderr), 2 wrong usage, 130 Ctrl-C.",
        "",
        _block(parser),
    ]
    _commands(parser, parts)
    return "\n".join(parts) + "\n"


def _commands(parser: argparse.ArgumentParser, parts: list[str], under: str = "") -> None:
    for action in parser._actions:  # pyright: ignore[reportPrivateUsage]
        if isinstance(action, argparse._SubParsersAction):  # pyright: ignore[reportPrivateUsage]
            subs: dict[str, argparse.ArgumentParser] = dict(action.choices)  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
            for name in sorted(subs):
                parts += ["", f"##{'#' if under else ''} {under}{name}", "", _block(subs[name])]
                _commands(subs[name], parts, f"{under}{name} ")


def _block(parser: argparse.ArgumentParser) -> str:
    return f"```\n{parser.format_help().rstrip()}\n```"


if __name__ == "__main__":
    print(page(), end="")
