"""Reads the configuration: the file, then the environment over it."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, TypeAdapter, ValidationError

from interactd.config.explain import did_you_mean, find_line, known_fields, problem
from interactd.config.schema import BUILT_IN, Config
from interactd.errors import ConfigError
from interactd.paths import Paths

MAX_BYTES = 1_000_000
_ENV_SECTIONS = ("defaults", "embedded", "daemon", "serve", "webhooks", "limits", "retention", "budget", "hosted")
_ENV_SHORT = {"INTERACTD_MODEL": "INTERACTD_DEFAULTS_MODEL"}


def load(paths: Paths, env: Mapping[str, str] | None = None) -> Config:
    """Read the configuration file, if there is one, and `INTERACTD_SECTION_FIELD` variables over it.

    Args:
        paths: where the file is (`paths.config_file`).
        env: the environment; default: this process's.

    Raises:
        ConfigError: something is wrong; every problem is in the message with its file, line and field.
    """
    env = os.environ if env is None else env
    file = paths.config_file
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return parse("", None, env)
    except OSError as error:
        raise ConfigError(
            f"{file}: cannot be read: {error.strerror or error}",
            repair="Make it a file that this user can read, or remove it.",
            file=str(file),
        ) from None
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{file}: is larger than {MAX_BYTES:,} bytes", repair="Is it the right file?", file=str(file))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{file}, line {line}: is not UTF-8 text", repair="Save the file as UTF-8.", file=str(file), line=line
        ) from None
    return parse(text, file, env)


def parse(text: str, file: Path | None = None, env: Mapping[str, str] | None = None) -> Config:
    """Read a TOML text as the configuration. As `load`, for text that is already here."""
    shown = str(file) if file else "configuration"
    try:
        data: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        line = _syntax_line(message, text)
        where = f"{shown}, line {line}" if line else shown
        raise ConfigError(
            f"{where}: is not TOML: {message}", repair=f"Correct {shown}.", file=shown, line=line
        ) from None
    if "file" in data:
        data["file_"] = data.pop("file")
    sources = _apply_env(data, env or {})
    try:
        config = Config.model_validate({**data, "file": str(file) if file else None}, strict=True)
    except ValidationError as error:
        raise _explained([problem(one, Config) for one in error.errors()], text, shown, sources) from None
    missing = [
        (["providers", name, key], f"is missing ({name} is not built in: it needs kind and base_url)")
        for name, table in config.providers.items()
        for key in ("kind", "base_url")
        if name not in BUILT_IN and getattr(table, key) is None
    ]
    if missing:
        raise _explained(missing, text, shown, sources)
    return config


def _apply_env(data: dict[str, Any], env: Mapping[str, str]) -> dict[tuple[str, ...], str]:
    """Put the environment's settings into `data`; returns which path came from which variable."""
    sources: dict[tuple[str, ...], str] = {}
    for given in sorted(env):
        name = _ENV_SHORT.get(given, given)
        section = next((s for s in _ENV_SECTIONS if name.startswith(f"INTERACTD_{s.upper()}_")), None)
        if section is None or not env[given]:
            continue
        field = name.removeprefix(f"INTERACTD_{section.upper()}_").lower()
        model = cast("type[BaseModel]", Config.model_fields[section].annotation)
        if field not in model.model_fields:
            raise ConfigError(
                f"environment variable {given}: no such setting" + did_you_mean(field, known_fields([section], Config)),
                repair=f"Unset {given}, or correct its name.",
                field=f"{section}.{field}",
            )
        info = model.model_fields[field]
        text = env[given]
        value: Any = (
            [part.strip() for part in text.split(",") if part.strip()] if "list" in str(info.annotation) else text
        )
        is_duration = field == "ttl" or (section == "retention" and not field.startswith("log_"))
        if not is_duration and value is text:
            try:
                value = TypeAdapter[Any](cast("Any", info.annotation)).validate_strings(text)
            except ValidationError as error:
                _, phrase = problem({**error.errors()[0], "loc": (field,)}, model)
                raise ConfigError(
                    f"environment variable {given}: {phrase}", repair=f"Correct {given}.", field=f"{section}.{field}"
                ) from None
        table = data.setdefault(section, {})
        if isinstance(table, dict):
            cast("dict[str, Any]", table)[field] = value
            sources[section, field] = given
    return sources


def _explained(
    found: list[tuple[list[str], str]], text: str, shown: str, sources: dict[tuple[str, ...], str]
) -> ConfigError:
    rows: list[tuple[int, str, str, str]] = []
    for path, phrase in found:
        field = ".".join("file" if part == "file_" else part for part in path)
        variable = sources.get(tuple(path[:2]))
        line = None if variable else find_line(text, field.split(".") if field == "file" else path)
        where = f"environment variable {variable}" if variable else f"{shown}, line {line}" if line else shown
        rows.append((line or 0, where, field, phrase.replace("'file_'", "'file'")))
    rows.sort(key=lambda row: row[0])
    problems = [f"{where}: {field}: {phrase}" for _, where, field, phrase in rows]
    return ConfigError(
        "\n".join(problems),
        repair="Correct the configuration; docs/configuration.md lists every setting.",
        problems=problems,
        file=shown,
        line=rows[0][0] or None,
        field=rows[0][2],
    )


def _syntax_line(message: str, text: str) -> int | None:
    if "at end of document" in message:
        return max(1, len(text.splitlines()))
    _, _, rest = message.partition("at line ")
    digits = rest.split(",")[0]
    return int(digits) if digits.isdigit() else None
