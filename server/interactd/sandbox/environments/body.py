"""Reading what a caller wants an environment to be, as the Interactions API writes it."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, cast

from interactd import approvals
from interactd.errors import InvalidArgument, NotFound
from interactd.nouns import Json
from interactd.sandbox.folder.beneath import inside
from interactd.sandbox.folder.names import shown
from interactd.sandbox.port import Limits

INLINE_MAX: Final = 1 << 20
INLINE_TOTAL: Final = 2 << 20
SOURCES_MAX: Final = 200
FIELDS: Final = ("sources", "env", "network", "limits", "approvals", "from_environment")
_IGNORED: Final = ("type", "withheld")
"""`withheld` names the values that an archive was made without."""
_BOUNDS: Final[dict[str, tuple[float, float]]] = {
    "memory_mb": (32, 1 << 20),
    "pids": (8, 32_768),
    "cpu": (0.05, 1024),
    "cpu_s": (1, 7 * 86_400),
    "wall_s": (1, 86_400),
    "disk_mb": (1, 1 << 22),
    "file_mb": (1, 1 << 22),
    "output_bytes": (1024, 1 << 30),
    "open_files": (16, 65_536),
}


@dataclass(frozen=True, slots=True)
class Source:
    """Something to put into the workspace. `target` is relative to it, as bytes; empty is the workspace itself."""

    kind: Literal["inline", "repository", "local"]
    target: bytes
    content: bytes = b""
    url: str = ""
    ref: str | None = None
    folder: Path | None = None
    mount: bool = False

    def as_dict(self) -> Json:
        """What is kept of it: no content."""
        out: Json = {"type": self.kind, "target": "/workspace" + ("/" + shown(self.target) if self.target else "")}
        if self.kind == "inline":
            return {**out, "size_bytes": len(self.content)}
        if self.kind == "repository":
            return {**out, "source": self.url, **({"ref": self.ref} if self.ref else {})}
        return {**out, "source": str(self.folder), "mode": "mount" if self.mount else "copy"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A checked create body. A field that was not given is None, so that a fork can take its base's."""

    sources: list[Source] = field(default_factory=list[Source])
    env: dict[str, Any] | None = None
    network: Json | None = None
    network_given: bool = False
    limits: Json | None = None
    approvals: Json | None = None
    from_environment: str | None = None


def read(body: Mapping[str, Any], cwd: str | None, forbidden: tuple[Path, ...]) -> Wanted:
    """Check a create body.

    Args:
        body: `{sources, env, network, limits, approvals, from_environment}`, each optional.
        cwd: what relative local sources are relative to.
        forbidden: folders that no local source may hold or lie in (our own data).

    Raises:
        InvalidArgument: a field is wrong.
        NotFound: a local source is not there.
    """
    for name in body:
        if name not in FIELDS and name not in _IGNORED:
            raise InvalidArgument(
                f"environment.{str(name)[:60]}: no such field",
                repair=f"An environment has {', '.join(FIELDS)}.",
                field=f"environment.{str(name)[:60]}",
            )
    if body.get("type") not in (None, "remote", "local"):
        raise _wrong("environment.type", '"remote" (or leave it out)', body["type"])
    network: Any = body.get("network")
    return Wanted(
        sources=_sources(body.get("sources"), cwd, forbidden),
        env=_env(body.get("env")),
        network=None if network in (None, "disabled") else network,
        network_given="network" in body,
        limits=_limits(body.get("limits")),
        approvals=_approvals(body.get("approvals")),
        from_environment=_text(body.get("from_environment"), "environment.from_environment"),
    )


def limits_from(given: Mapping[str, Any]) -> Limits:
    """Return limits from what an environment's row says; unknown names (of another version) are left out."""
    names = {f.name for f in dataclasses.fields(Limits)}
    return Limits(**{name: value for name, value in given.items() if name in names})


def _sources(given: Any, cwd: str | None, forbidden: tuple[Path, ...]) -> list[Source]:
    if given is None:
        return []
    if not isinstance(given, list):
        raise _wrong("environment.sources", "a list of sources", given)
    listed = cast("list[Any]", given)
    if len(listed) > SOURCES_MAX:
        raise InvalidArgument(f"environment.sources: at most {SOURCES_MAX}, got {len(listed)}", field="sources")
    found = [_source(one, f"environment.sources[{n}]", cwd, forbidden) for n, one in enumerate(listed)]
    total = sum(len(one.content) for one in found)
    if total > INLINE_TOTAL:
        raise InvalidArgument(
            f"environment.sources: inline contents are {total} bytes together, at most {INLINE_TOTAL} are taken",
            repair="Put the files into a folder and give it as a local source.",
            field="sources",
        )
    targets = [one.target for one in found]
    for number, target in enumerate(targets):
        if target in targets[:number]:
            raise InvalidArgument(
                f"environment.sources[{number}].target: {shown(target) or '/workspace'!r} is the target of another"
                " source too",
                field=f"environment.sources[{number}].target",
            )
    return found


def _source(one: Any, where: str, cwd: str | None, forbidden: tuple[Path, ...]) -> Source:
    if not isinstance(one, dict):
        raise _wrong(where, '{"type", ...}', one)
    given = cast("Json", one)
    kind = given.get("type")
    allowed = {
        "inline": ("content", "encoding", "target"),
        "repository": ("source", "ref", "target"),
        "local": ("source", "mode", "target"),
    }
    if kind not in allowed:
        raise InvalidArgument(
            f"{where}.type: expected inline, repository or local, got {str(kind)[:60]!r}",
            repair="gcs and skill_registry belong to the hosted service; download the files and give a local folder.",
            field=f"{where}.type",
        )
    for name in given:
        if name != "type" and name not in allowed[kind]:
            raise InvalidArgument(
                f"{where}.{name[:60]}: no such field of {kind}",
                repair=f"It has {', '.join(allowed[kind])}.",
                field=f"{where}.{name[:60]}",
            )
    if kind == "inline":
        return _inline(given, where)
    name = _text(given.get("source"), f"{where}.source")
    if name is None:
        raise _wrong(f"{where}.source", "an address" if kind == "repository" else "a folder", None)
    if kind == "local":
        return _local(given, name, where, cwd, forbidden)
    ref = _text(given.get("ref"), f"{where}.ref")
    if ref is not None and (ref.startswith("-") or not ref.isprintable() or " " in ref or len(ref) > 250):
        raise _wrong(f"{where}.ref", "a branch, tag or commit", ref)
    last = name.rstrip("/").rpartition("/")[2].removesuffix(".git")
    if not name.startswith("https://") or not name.isprintable() or " " in name or "@" in name.split("/")[2]:
        raise InvalidArgument(
            f"{where}.source: expected an https:// address without user or password, such as"
            " https://github.com/owner/name",
            repair="For a private repository add a credential and list its domain with it in network; for one on this"
            " machine use a local source.",
            field=f"{where}.source",
        )
    return Source("repository", _target(given.get("target"), f"{where}.target", last), url=name, ref=ref)


def _inline(given: Json, where: str) -> Source:
    text, encoding = given.get("content"), given.get("encoding")
    if not isinstance(text, str):
        raise _wrong(f"{where}.content", "text", text)
    if encoding not in (None, "base64", "utf-8"):
        raise _wrong(f"{where}.encoding", '"base64", or nothing for plain text', encoding)
    try:
        content = base64.b64decode("".join(text.split()), validate=True) if encoding == "base64" else text.encode()
    except (binascii.Error, ValueError):
        what = "base64" if encoding == "base64" else "text that has a UTF-8 form"
        raise InvalidArgument(f"{where}.content: it is not {what}", field=f"{where}.content") from None
    if len(content) > INLINE_MAX:
        raise InvalidArgument(
            f"{where}.content: {len(content)} bytes, at most {INLINE_MAX} are taken inline",
            repair="Put the file into a folder and give it as a local source.",
            field=f"{where}.content",
        )
    target = _target(given.get("target"), f"{where}.target", None)
    if not target:
        raise _wrong(f"{where}.target", "a file's path such as data/input.csv", given.get("target"))
    return Source("inline", target, content=content)


def _local(given: Json, name: str, where: str, cwd: str | None, forbidden: tuple[Path, ...]) -> Source:
    mode = given.get("mode", "copy")
    if mode not in ("copy", "mount"):
        raise _wrong(f"{where}.mode", "copy or mount", mode)
    path = Path(os.path.expanduser(name))
    if not path.is_absolute():
        if cwd is None:
            raise InvalidArgument(
                f"{where}.source: {name!r} is relative, and the caller has no working directory",
                repair="Give an absolute path.",
                field=f"{where}.source",
            )
        path = Path(cwd) / path
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError):
        raise NotFound(f"{where}.source: there is no {str(path)!r}", kind="folder", id=str(path)) from None
    home = Path(os.path.expanduser("~")).resolve()
    if real == Path("/") or real == home or real in home.parents:
        raise InvalidArgument(
            f"{where}.source: {str(real)!r} is too much to hand to an agent",
            repair="Name the folder that it should work with.",
            field=f"{where}.source",
        )
    for ours in forbidden:
        if real.is_relative_to(ours) and real.relative_to(ours).parts[:1] == ("agents",):
            # Agents' own folders, kept by hash: what they bring along as sources lies there, and nothing else.
            continue
        if real == ours or ours in real.parents or real in ours.parents:
            raise InvalidArgument(f"{where}.source: {str(real)!r} holds interactd's own data", field=f"{where}.source")
    if not real.is_dir() and not (real.is_file() and mode == "copy"):
        raise _wrong(f"{where}.source", "a folder (or, to be copied, a file)", name)
    target = _target(given.get("target"), f"{where}.target", real.name)
    if mode == "mount" and not target:
        raise _wrong(f"{where}.target", "a folder below /workspace for a mount", given.get("target"))
    return Source("local", target, folder=real, mount=mode == "mount")


def _target(value: Any, where: str, default: str | None) -> bytes:
    text = _text(value, where)
    if text is None:
        if default is None:
            raise _wrong(where, "a path in the workspace", value)
        return inside(default)
    if text.strip() == "/":
        raise _wrong(where, "a path in the workspace, not the root", value)
    if text.strip() in (".", "/workspace", "/workspace/", "./"):
        return b""
    try:
        return inside(text)
    except InvalidArgument as error:
        raise InvalidArgument(f"{where}: {error.message}", repair=error.repair, field=where) from None


def _env(given: Any) -> dict[str, Any] | None:
    """Names and sizes only; what stands in it is checked with the network's policy."""
    if given is None:
        return None
    if not isinstance(given, dict):
        raise _wrong("environment.env", "names and values", given)
    env = cast("dict[Any, Any]", given)
    for name, value in env.items():
        shown_name = str(name)[:60]
        if not isinstance(name, str) or not name.isidentifier() or not name.isascii() or len(name) > 200:
            raise _wrong("environment.env", "names such as API_URL", name)
        if name.startswith(("LD_", "INTERACTD_", "BASH_FUNC")):
            raise InvalidArgument(f"environment.env.{shown_name}: this name is not taken", field=f"env.{shown_name}")
        if isinstance(value, str) and "\0" not in value:
            continue
        if not isinstance(value, dict) or set(cast("Json", value)) not in ({"credential"}, {"value"}):
            raise _wrong(
                f"environment.env.{shown_name}", 'text or {"credential": id}', type(cast("object", value)).__name__
            )
    if sum(len(str(name)) + len(str(value)) for name, value in env.items()) > 65_536:
        raise InvalidArgument("environment.env: more than 64 KB together", field="environment.env")
    return cast("dict[str, Any]", dict(env))


def _limits(given: Any) -> Json | None:
    if given is None:
        return None
    if not isinstance(given, dict):
        raise _wrong("environment.limits", "names and numbers", given)
    out: Json = {}
    for name, value in cast("Json", given).items():
        bounds = _BOUNDS.get(name)
        where = f"environment.limits.{str(name)[:60]}"
        if bounds is None:
            raise InvalidArgument(f"{where}: no such limit", repair=f"There are {', '.join(_BOUNDS)}.", field=where)
        whole = name not in ("cpu", "cpu_s", "wall_s")
        wrong = isinstance(value, bool) or not isinstance(value, int | float) or (whole and value != int(value))
        if wrong or not bounds[0] <= value <= bounds[1]:
            raise _wrong(where, f"a {'whole ' if whole else ''}number from {bounds[0]} to {bounds[1]}", value)
        out[name] = int(value) if whole else float(value)
    return out


def _approvals(given: Any) -> Json | None:
    try:
        return approvals.clean(given)
    except approvals.Malformed as error:
        where = error.where("environment.approvals")
        raise InvalidArgument(f"{where}: {error.problem}", field=where) from None


def _text(value: Any, where: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip() or "\0" in value or len(value) > 4096:
        raise _wrong(where, "text", value)
    return value


def _wrong(where: str, expected: str, got: Any) -> InvalidArgument:
    shown_value = repr(got) if isinstance(got, str | int | float | bool | None) else type(got).__name__
    return InvalidArgument(f"{where}: expected {expected}, got {shown_value[:120]}", field=where)
