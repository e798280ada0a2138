"""What a user may set about the embedded model (`[embedded]` in the configuration file)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from interactd.models.embedded.weights.table import DEFAULT

if TYPE_CHECKING:
    from interactd.config import Embedded

WEIGHTS_VARIABLE = "INTERACTD_WEIGHTS"


@dataclass(frozen=True, slots=True)
class EmbeddedSettings:
    """Defaults fit a small machine. Durations are seconds.

    `model` is what `embedded` and `embedded/auto` mean. `url` names a llama-server (or anything with its HTTP
    interface) to use instead of our child process; `api_key` goes with it. `weights` is a folder of files somebody
    already downloaded, looked into but never written. `threads=None` is all cores but one: with a thread for every
    core llama.cpp becomes up to 20 times slower as soon as anything else runs.
    """

    model: str = DEFAULT
    url: str | None = None
    api_key: str | None = None
    weights: Path | None = None
    idle_s: float = 300.0
    start_timeout_s: float = 120.0
    silence_timeout_s: float = 300.0
    """The longest wait for the next piece of an answer; reading a full window cold takes about a minute."""
    threads: int | None = None
    context: int = 4096
    max_output_tokens: int = 1024
    """For a request that sets no limit: a small model that repeats itself must end some time."""
    prompt_cache_mib: int = 192
    """Memory for the prompts of sessions that took turns on the one slot."""

    @classmethod
    def of(cls, section: Embedded) -> EmbeddedSettings:
        """Return the settings of the configuration's `[embedded]` section."""
        settings = cls(
            url=section.url,
            weights=Path(section.weights).expanduser() if section.weights else None,
            idle_s=section.idle_s,
            threads=section.threads,
            context=section.context,
            max_output_tokens=section.max_output_tokens,
        )
        return replace(settings, model=section.model) if section.model else settings

    def thread_count(self) -> int:
        """Return the number of threads to generate with, at least 1."""
        if self.threads is not None:
            return max(1, self.threads)
        return max(1, _cores() - 1)

    def weights_folder(self, env: Mapping[str, str] | None = None) -> Path | None:
        """Return the folder of already downloaded weights: the setting, else `INTERACTD_WEIGHTS`, else None."""
        if self.weights is not None:
            return self.weights
        given = (os.environ if env is None else env).get(WEIGHTS_VARIABLE, "").strip()
        return Path(given).expanduser() if given else None


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
