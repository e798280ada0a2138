"""The configuration: one TOML file and the environment. `load(paths)` gives a `Config`."""

from __future__ import annotations

from interactd import envnames
from interactd.config.load import load, parse
from interactd.config.schema import (
    BUILT_IN,
    Config,
    Daemon,
    Defaults,
    Embedded,
    Kind,
    Limits,
    Provider,
    Serve,
    check_base_url,
)

__all__ = [
    "BUILT_IN",
    "Config",
    "Daemon",
    "Defaults",
    "Embedded",
    "Kind",
    "Limits",
    "Provider",
    "Serve",
    "allowed_env",
    "check_base_url",
    "load",
    "parse",
]


def allowed_env(config: Config) -> frozenset[str]:
    """Return the names of environment variables that a host may pass to the daemon."""
    named = {table.api_key_env for table in config.providers.values() if table.api_key_env}
    return frozenset(envnames.ENV_NAMES) | named
