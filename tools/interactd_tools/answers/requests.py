"""What an agent's run asked of the network, in a few lines."""

from __future__ import annotations

from collections.abc import Sequence

from interactd.nouns import Json
from interactd_tools.answers.text import plural
from interactd_tools.arguments.problems import printable

FEW = 20


def brief(requests: Sequence[Json]) -> str:
    """Return how many there were and the first of them, refused ones first; empty where there were none."""
    if not requests:
        return ""
    refused = [one for one in requests if one.get("verdict") != "allowed"]
    shown = [*refused, *(one for one in requests if one.get("verdict") == "allowed")][:FEW]
    lines = [f"Network: {plural(len(requests), 'request')}, {len(refused)} not let through."]
    lines += [line(one) for one in shown]
    if len(requests) > len(shown):
        lines.append(f"... and {len(requests) - len(shown)} more: interactd show has all of them.")
    return "\n".join(lines)


def line(request: Json) -> str:
    """Return one request on a line: method, host and port, verdict with its reason, bytes."""
    why = f" ({request['reason']})" if request.get("reason") else ""
    what = f"{request.get('method')} {request.get('host')}:{request.get('port')}"
    return printable(f"- {what} {request.get('verdict')}{why}, {int(request.get('bytes') or 0):,} bytes")
