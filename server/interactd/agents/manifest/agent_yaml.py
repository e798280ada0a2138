"""agent.yaml: read, checked, and its environment put into the shape that environments are created from."""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path
from typing import Any, cast

from interactd.agents.documents import Document, Fault, FieldPath, text, yaml_text
from interactd.agents.manifest import approvals, schema
from interactd.agents.manifest.explain import check, did_you_mean, known_fields, wrong
from interactd.agents.port import BUILTIN_TOOLS, DEFAULT_AGENT
from interactd.nouns import Json

NAME = "agent.yaml"
MAX_BYTES = 65_536
ALIAS = re.compile(rf"{DEFAULT_AGENT}(-preview)?-[0-9]{{2}}-[0-9]{{4}}")
"""Dated ids of the hosted service (`antigravity-preview-09-2026`): each is the built-in agent."""
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_SOURCES = {
    "inline": schema.InlineSource,
    "repository": schema.RepositorySource,
    "local": schema.LocalSource,
}


def read(data: bytes, *, folder_name: str, inside: Path | None) -> tuple[schema.Manifest | None, Document]:
    """Read an agent.yaml.

    Args:
        data: the file.
        folder_name: what `id` has to be.
        inside: for an agent of a project, which is not trusted: the project's folder. Such an agent takes local
            sources from there only, and no credentials.

    Returns:
        The manifest (None when faults forbid to use it) and the document with every fault.
    """
    plain, faults = text.decode(data)
    if faults:
        return None, Document(faults=faults)
    document = yaml_text.read(plain)
    if document.value is None:
        if not document.faults:
            document.faults.append(Fault("the file is empty; it needs at least `id` and `description`", 1))
        return None, document
    if not isinstance(cast("object", document.value), dict):
        wrong(document, (), "fields such as `id: my-agent`", document.value)
        return None, document
    value = cast("Json", document.value)
    for name in schema.RESERVED_FIELDS:
        if name in value:
            at = (name,)
            message = "is reserved for a later version, and nothing acts on it yet; take it out"
            document.faults.append(Fault(message, document.line(at), at))
            del value[name]
    if value.pop("policy", None) is not None:
        at = ("policy",)
        document.faults.append(
            Fault("is called `approvals` here; or give a tool's entry a policy", document.line(at), at)
        )
    manifest = check(schema.Manifest, value, document)
    _identity(value, document, folder_name)
    _tools(value.get("tools"), document)
    _environment(value.get("environment"), document, inside)
    approvals.check(value, document)
    return None if document.faults else manifest, document


def builtin_name(entry: Any) -> str | None:
    """Return the name of a built-in tool for its entry in `tools`; None for a function."""
    if isinstance(entry, str):
        return entry
    kind = cast("Json", entry).get("type")
    return kind if kind in BUILTIN_TOOLS else None


def _identity(value: Json, document: Document, folder_name: str) -> None:
    given = value.get("id")
    if not isinstance(given, str) or not schema.ID.fullmatch(given):
        return
    if given != folder_name:
        wrong(document, ("id",), f"{text.shown(folder_name)}, the folder's name", given)
    if ALIAS.fullmatch(given):
        wrong(document, ("id",), f"another name: dated ids mean the built-in {DEFAULT_AGENT}", given)


def _tools(tools: Any, document: Document) -> None:
    if not isinstance(tools, list):
        return
    seen: dict[str, int] = {}
    for number, entry in enumerate(cast("list[Any]", tools)):
        at: FieldPath = ("tools", number)
        name: Any = entry
        if isinstance(entry, dict):
            given = cast("Json", entry)
            known = ("function", *BUILTIN_TOOLS)
            if given.get("type") not in known:
                kind = given.get("type")
                hint = did_you_mean(kind, known) if isinstance(kind, str) else ""
                where = (*at, "type") if "type" in given else at
                expected = "type: function or a built-in tool"
                document.faults.append(
                    Fault(f"expected {expected}, got {text.shown(kind)}{hint}", document.line(where), where)
                )
                continue
            model = schema.FunctionTool if given["type"] == "function" else schema.BuiltinToolEntry
            check(model, given, document, at)
            name = given.get("name") if given["type"] == "function" else given["type"]
        elif not isinstance(entry, str):
            wrong(document, at, "the name of a built-in tool or a function's declaration", entry)
            continue
        elif entry not in BUILTIN_TOOLS:
            hint = did_you_mean(entry, BUILTIN_TOOLS)
            document.faults.append(Fault(f"unknown tool {text.shown(entry, 40)}{hint}", document.line(at), at))
            continue
        if isinstance(name, str):
            if name in seen:
                message = f"{text.shown(name)} stands here twice, first as tools[{seen[name]}]"
                document.faults.append(Fault(message, document.line(at), at))
            seen.setdefault(name, number)


def _environment(environment: Any, document: Document, inside: Path | None) -> None:
    if not isinstance(environment, dict):
        return
    given = cast("Json", environment)
    at: FieldPath = ("environment",)
    if isinstance(given.get("sources"), list):
        for number, source in enumerate(given["sources"]):
            _source(source, document, (*at, "sources", number), inside)
    if isinstance(given.get("env"), dict):
        for name, value in cast("Json", given["env"]).items():
            _variable(name, value, document, (*at, "env", name), trusted=inside is None)
    _network(given.get("network"), document, (*at, "network"), trusted=inside is None)


def _source(source: Any, document: Document, at: FieldPath, inside: Path | None) -> None:
    if not isinstance(source, dict):
        wrong(document, at, "a mapping with `type`, `target` and what the type needs", source)
        return
    given = cast("Json", source)
    kind = given.get("type")
    model = _SOURCES.get(kind) if isinstance(kind, str) else None
    if model is None:
        hint = did_you_mean(kind, list(_SOURCES)) if isinstance(kind, str) else ""
        where = (*at, "type") if "type" in given else at
        message = f"expected type: inline, repository or local, got {text.shown(kind)}{hint}"
        document.faults.append(Fault(message, document.line(where), where))
        return
    found = check(model, given, document, at)
    if isinstance(found, schema.InlineSource) and found.encoding == "base64":
        try:
            base64.b64decode("".join(found.content.split()), validate=True)
        except (ValueError, binascii.Error):
            wrong(document, (*at, "content"), "base64, as `encoding` says", show=False)
    if isinstance(found, schema.LocalSource) and inside is not None and not _is_inside(found.source, inside):
        wrong(
            document,
            (*at, "source"),
            "a folder of this project: its agents see nothing else of the machine",
            found.source,
        )


def _is_inside(source: str, folder: Path) -> bool:
    try:
        resolved = (folder / source).resolve()
    except (OSError, RuntimeError):
        return False
    return resolved.is_relative_to(folder.resolve())


def _variable(name: str, value: Any, document: Document, at: FieldPath, *, trusted: bool) -> None:
    if not _ENV_NAME.fullmatch(name):
        wrong(document, at, "a name of letters, digits and _", name)
    elif name.startswith(("LD_", "INTERACTD_", "BASH_FUNC")):
        wrong(document, at, "another name: this one is not taken", name)
    if isinstance(value, str):
        if len(value) > 32_768:
            wrong(document, at, f"at most 32768 characters, got {len(value)}", show=False)
        return
    if not isinstance(value, dict):
        hint = "; put it in quotes" if isinstance(value, int | float | bool) else ""
        message = f"expected text or {{credential: NAME}}, got {_kind(value)}{hint}"
        document.faults.append(Fault(message, document.line(at), at))
        return
    model = schema.Plain if "value" in value else schema.Reference
    found = check(model, value, document, at)
    if isinstance(found, schema.Reference):
        _credential(document, (*at, "credential"), trusted=trusted)


def _network(network: Any, document: Document, at: FieldPath, *, trusted: bool) -> None:
    if network is None or network == "disabled":
        return
    if not isinstance(network, dict):
        wrong(document, at, "disabled, or `allowlist:` with domains", network)
        return
    given = cast("Json", network)
    if given.get("allowlist") == "disabled" and len(given) == 1:
        return
    if check(schema.Allowlist, given, document, at) is None:
        return
    for number, entry in enumerate(cast("list[Any]", given["allowlist"])):
        here: FieldPath = (*at, "allowlist", number)
        if not isinstance(entry, str | dict):
            wrong(document, here, "a domain such as example.org, or a mapping with `domain`", entry)
            continue
        whole: Json = {"domain": entry} if isinstance(entry, str) else cast("Json", entry)
        found = check(schema.Domain, whole, document, here)
        if found is not None and found.credential is not None:
            _credential(document, (*here, "credential"), trusted=trusted)


def _credential(document: Document, at: FieldPath, *, trusted: bool) -> None:
    if not trusted:
        message = "a project's agent gets no credentials; move its folder to the config folder if you trust it"
        document.faults.append(Fault(message, document.line(at), at))


def _kind(value: Any) -> str:
    # Not the value: people put secrets there.
    if isinstance(value, bool):
        return "true or false"
    return "a number" if isinstance(value, int | float) else "nothing" if value is None else "a list"


FIELDS = (*known_fields(schema.Manifest), *schema.RESERVED_FIELDS)
