"""`interactd usage`, `budget` and `prices`, as a person types them."""

from __future__ import annotations

import pytest

from cli.conftest import Terminal
from support.provider import Reply

pytestmark = pytest.mark.anyio

CONFIG = """
[prices.openai]
input = 1000
output = 2000

[budget]
day_usd = 500
"""


async def test_what_was_spent_is_shown_and_a_session_can_be_limited(terminal: Terminal) -> None:
    file = terminal.home.root / "config" / "config.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(CONFIG)
    terminal.provider.default = Reply("Hello.", input_tokens=10, output_tokens=5)
    said = await terminal.run("chat", "-m", "openai/fake-model-1", "Hi.")
    assert said.code == 0, said.err
    usage = (await terminal.run("usage", "--by", "session", "--since", "7d", "--json")).json
    (line,) = usage["lines"]
    assert (line["usd"], line["calls"]) == (0.02, 1)
    assert usage["today"]["budget"] == {"usd": 500.0}
    assert "note" in usage["hosted"]
    shown = await terminal.run("usage")
    assert "total: $0.0200, 15 tokens in 1 calls" in shown.out
    assert "today: $0.0200 ($499.9800 of $500.00 left)" in shown.out
    session = line["key"]
    made = await terminal.run("budget", session[:12], "$2 and 50k tokens")
    assert made.out.startswith(f"{session}: $0.0200 spent, 15 tokens ($1.9800 of $2.00 left, 49,985 of 50,000 tokens")
    assert (await terminal.run("budget", session, "--json")).json["budget"] == {"usd": 2.0, "tokens": 50_000}
    assert "$1.9800 of $2.00 left" in (await terminal.run("sessions", "--detailed")).out
    assert "$0.0200, 15 tokens" in (await terminal.run("show", session, "--detailed")).out
    assert "no budget" in (await terminal.run("budget", session, "none")).out
    wrong = await terminal.run("budget", session, "lots")
    assert wrong.code == 1
    assert wrong.err.startswith("invalid_argument: budget: expected a budget such as")


async def test_a_price_is_shown_with_its_source_and_date_without_any_key(terminal: Terminal) -> None:
    shown = await terminal.run("prices", "anthropic/claude-sonnet-5", "claude-opus-5")
    assert shown.code == 0, shown.err
    assert "a million tokens" in shown.out
    assert "from genai-prices" in shown.out
    assert ", as of 2026-" in shown.out
    unknown = await terminal.run("prices", "nobody/knows")
    assert unknown.code == 1
    assert "unknown. Nobody knows what it costs" in unknown.out
    assert (await terminal.run("prices", "gemini/gemini-2.5-pro", "--json")).json["price"]["tiers"]
