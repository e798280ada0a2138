"""What can be set about triggers and webhooks. Times are seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DurableSettings:
    """Limits and patience."""

    max_triggers: int = 200
    max_webhooks: int = 100
    grace_s: float = 120
    """A firing that is no later than this is on time; what is later was missed."""
    recheck_s: float = 60
    """While anything is scheduled the clock is looked at at least this often: it may have jumped, and a machine that
    slept does not count the time of its sleep."""
    start_lease_s: float = 20
    """How long one daemon is left alone with a start; two at once start one turn all the same."""
    start_patience_s: float = 600
    """How long a run is tried to be started while the daemon has no room for it."""
    starts_at_once: int = 8
    deliveries_at_once: int = 16
    deliveries_per_webhook: int = 4
    answer_s: float = 15
    """What a receiver has for everything: name, connection, TLS, answer."""
    command_s: float = 30
    """What a command has, unless its webhook says otherwise."""
    first_retry_s: float = 5
    longest_retry_s: float = 6 * 3600.0
    kept_s: float = 90 * 86_400.0
    """How long executions and deliveries stay on record."""
    prune_every_s: float = 6 * 3600.0
    allow: tuple[str, ...] = ()
    """Addresses and networks that webhooks may reach though they are not public."""
    commands: str = "cli"
    """Who may make a webhook that runs a command: `cli` (the command line only), `anyone`, `off`."""
