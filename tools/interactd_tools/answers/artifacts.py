"""How the files of an agent's turn read: names that are safe to show, lists, links."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from interactd.sandbox.environments_port import Artifact
from interactd_tools.answers.text import compact, plural
from interactd_tools.arguments.problems import printable
from interactd_tools.context import Link

FEW = 10
_SHORT = 12


def uri(artifact: Artifact) -> str:
    """Return the resource URI of an artifact.

    A name that clients would take apart or tidy away (`..`, empty parts, control characters) is left out for the id.
    """
    parts = artifact.name.split("/")
    plain = artifact.name.isprintable() and all(part.strip() not in ("", ".", "..") for part in parts)
    return f"interactd://artifacts/{artifact.interaction_id}/{quote(artifact.name if plain else artifact.id)}"


def label(artifact: Artifact) -> str:
    """Return the name in quotes for a person or model, with the id beside it where the name cannot be given back."""
    known = named(artifact)
    if known == artifact.name:
        return compact(known)
    return f"{compact(artifact.id)} (its name, not as it is: {compact(safe(artifact.name))})"


def link(artifact: Artifact) -> Link:
    """Return the resource link of an artifact."""
    name = safe(artifact.name)
    return Link(uri(artifact), name, artifact.mime_type, f"{artifact.size_bytes:,} bytes")


def safe(name: str) -> str:
    """Return a name on one line, with nothing in it that moves a cursor or turns text around."""
    return printable(name.encode("utf-8", "backslashreplace").decode())


def named(artifact: Artifact) -> str:
    """Return what a call gives as `name`: the name where it can be written as it is, else the id."""
    name = artifact.name
    return name if name.isprintable() and name.strip() == name and name else artifact.id


def find(artifacts: Sequence[Artifact], name: str) -> Artifact | None:
    """Find the file somebody means: by its name, its id, or its path in the sandbox."""
    plain = name.strip().strip("\"'`")
    short = plain.removeprefix("/workspace/").removeprefix("./")
    # Names are kept as printable text; some hosts read `\\n` in a call as the line break it stands for, or double it.
    for wanted in dict.fromkeys((name, plain, short, safe(name), safe(short), plain.replace("\\\\", "\\"))):
        if (found := next((one for one in artifacts if wanted in (one.name, one.id)), None)) is not None:
            return found
    return None


def near(artifacts: Sequence[Artifact], name: str) -> list[str]:
    """Return up to five names that may have been meant: the same file in another folder first."""
    base = name.rpartition("/")[2].lower()
    same = [named(one) for one in artifacts if one.name.rpartition("/")[2].lower() == base]
    # Comparing with 100,000 names would hold everybody up.
    close = difflib.get_close_matches(name[:200], [named(one) for one in artifacts[:500]], n=5, cutoff=0.5)
    return list(dict.fromkeys([*same, *close]))[:5]


def line(artifact: Artifact, *, whole: bool) -> str:
    """Return one line of a list: name, type, size, sha256 (its first figures unless `whole`)."""
    digest = artifact.sha256 if whole else artifact.sha256[:_SHORT] + "…"
    facts = [artifact.mime_type, plural(artifact.size_bytes, "byte"), f"sha256 {digest}"]
    return f"- {label(artifact)} · " + " · ".join(facts)


def facts(artifact: Artifact) -> dict[str, Any]:
    """Return the structured form."""
    return {
        "name": named(artifact),
        "size_bytes": artifact.size_bytes,
        "mime_type": artifact.mime_type,
        "sha256": artifact.sha256,
    }


def brief(artifacts: Sequence[Artifact]) -> str:
    """Return the block about a finished run's files: how many, and the first few by name and size."""
    if not artifacts:
        return ""
    lines = [f"- {label(one)} · {one.mime_type} · {plural(one.size_bytes, 'byte')}" for one in artifacts[:FEW]]
    more = [f"- and {len(artifacts) - FEW:,} more"] if len(artifacts) > FEW else []
    return "\n".join([f"{plural(len(artifacts), 'file')} kept:", *lines, *more])
