"""What an agent has to ask before doing: `approvals`, and `policy` and `rules` of single entries of `tools`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from interactd.agents.documents import Document, Fault, FieldPath
from interactd.agents.manifest.schema import TOOL_NAMES, Manifest
from interactd.approvals import Malformed, clean
from interactd.nouns import Json

ENTRY_FIELDS: Final = ("policy", "rules")


def check(value: Mapping[str, Any], document: Document) -> None:
    """Add what is wrong with the policies of a manifest to the document's faults."""
    if value.get("approvals") is not None:
        _check(value["approvals"], ("approvals",), document)
    tools: Any = value.get("tools")
    for number, entry in enumerate(cast("list[Any]", tools) if isinstance(tools, list) else []):
        if isinstance(entry, Mapping) and any(name in entry for name in ENTRY_FIELDS):
            own = _own(cast("Mapping[str, Any]", entry))
            _check(own, ("tools", number), document)
            if "rules" in own and own.get("policy", "auto") != "auto":
                at = ("tools", number, "policy")
                message = "expected auto where there are rules: the other policies go by none"
                document.faults.append(Fault(message, document.line(at), at))


def policies(layers: Sequence[tuple[Manifest, bool]]) -> tuple[Json, ...]:
    """Return the policies of an agent, each of which holds.

    What the user owns replaces what it builds on, part by part. What comes from a project only adds.

    Args:
        layers: manifests from the base to the agent itself, and whether each is trusted.
    """
    entries: Json = {}
    general: Json | None = None
    added: list[Json] = []
    for manifest, trusted in layers:
        own = None if manifest.tools is None else _of_entries(manifest.tools)
        said = clean(manifest.approvals)
        if not trusted:
            both = _together(own or {}, said)
            added += [both] if both else []
            continue
        entries = entries if own is None else own
        general = general if said is None else said
    first = _together(entries, general)
    return tuple([first, *added] if first else added)


def _of_entries(tools: Sequence[Any]) -> Json:
    """The policies that entries of `tools` have of their own."""
    words: Json = {}
    rules: list[Json] = []
    for entry in tools:
        if not isinstance(entry, Mapping) or not any(name in entry for name in ENTRY_FIELDS):
            continue
        name = str(cast("Json", entry)["type"])
        own = clean(_own(cast("Json", entry))) or {}
        words[name] = own.get("policy", "auto")
        rules += [{**rule, "tools": [name]} for rule in own.get("rules", [])]
    return {**({"tools": words} if words else {}), **({"rules": rules} if rules else {})}


def _together(entries: Json, general: Json | None) -> Json | None:
    if not entries:
        return general
    base = general or {}
    out: Json = {**base, "tools": {**base.get("tools", {}), **entries["tools"]}}
    if rules := [*entries.get("rules", []), *base.get("rules", [])]:
        out["rules"] = rules
    if "policy" not in out and not base.get("rules"):
        # Rules of one tool say nothing about the others; without this word they would.
        out["policy"] = None
    return out


def _own(entry: Mapping[str, Any]) -> Json:
    return {name: entry[name] for name in ENTRY_FIELDS if entry.get(name) is not None}


def _check(given: Any, at: FieldPath, document: Document) -> None:
    try:
        clean(given, known=TOOL_NAMES)
    except Malformed as error:
        where: FieldPath = (*at, *error.path)
        document.faults.append(Fault(error.problem, document.line(where), where))
