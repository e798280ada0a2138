"""What can be set about the engine. Times are seconds, sizes bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from interactd.nouns import Interaction, Json, ThinkingLevel


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Limits and patience; the defaults suit one person's machine."""

    version: str = "0"
    home: str | None = None
    """Shown by `status()`, nothing else."""
    default_ttl_s: float = 24 * 3600
    thinking_level: ThinkingLevel | None = None
    """What a session gets that asked for none; `None` leaves it to the provider."""
    max_running: int = 256
    """Interactions that may be at a model at once, over all sessions; the others wait in order of arrival."""
    provider_slots: Mapping[str, int] = field(default_factory=dict[str, int])
    """Of those, how many may be of one provider, where it is fewer."""
    retries: int = 3
    """How often in a row a background run is tried again that failed for a reason that may pass."""
    start_timeout_s: float | None = None
    timeout_s: float | None = None
    """What a turn gets that does not say for itself; see `engine.checks.terms.DISPATCH`."""
    max_open: int = 20_000
    """Interactions that may run or wait at once, over all sessions; more are refused."""
    max_queued: int = 100
    """Turns that may wait in one session."""
    max_input_bytes: int = 8 * 1024 * 1024
    max_output_bytes: int = 8 * 1024 * 1024
    """What one model call may produce before it is stopped as running away."""
    default_window: int = 128_000
    """Tokens assumed for a model whose context window nobody knows."""
    crash_limit: int = 3
    """Attempts that may each end with the daemon's death before the interaction is given up as `crashed`."""
    bad_call_limit: int = 3
    """Rounds in which a model may call functions that do not exist before the interaction fails."""
    resume_key_wait_s: float = 60
    """How long a resumed interaction waits for a host to connect again and bring its API key."""
    sweep_every_s: float = 60
    journal_patience_s: float = 300
    """How long the outcome of a model call is held in memory while the disk refuses it; then the call is made again."""
    lease_s: float = 30
    """How long this daemon may give no sign of life before another one on the same store may take what it runs."""
    cancel_patience_s: float = 1.5
    """How long a cancel waits for the runner to stop and settle before it settles without it."""
    capture_cancelled_s: float = 0.5
    """How long a cancelled run keeps files before it shows its end; what is left is kept after that."""
    read_grace_s: float = 3600
    """How long a background result is kept at least after somebody first read it, whatever its session's time."""
    approvals: Mapping[str, Any] | None = None
    """The user's own policy (`interactd.approvals`), as the configuration has it."""

    def terms_of(self, interaction: Interaction) -> Json:
        """When an interaction goes: what it says, over what is usual. Retries are a background run's unless asked
        for."""
        usual: Json = {
            "start_timeout_s": self.start_timeout_s,
            "timeout_s": self.timeout_s,
            "retries": self.retries if interaction.background else 0,
        }
        return {**usual, **(interaction.dispatch or {})}
