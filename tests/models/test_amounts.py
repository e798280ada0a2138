"""Budgets as people say them."""

from __future__ import annotations

from typing import Any

import pytest

from interactd.config.amounts import budget
from interactd.engine.checks.terms import check_budget
from interactd.errors import InvalidArgument


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("$2", {"usd": 2}),
        ("2 dollars", {"usd": 2}),
        ("2", {"usd": 2}),
        (2, {"usd": 2}),
        (0.05, {"usd": 0.05}),
        ("stop at 2 dollars", {"usd": 2}),
        ("at most $1,000.50", {"usd": 1000.5}),
        ("50 cents", {"usd": 0.5}),
        ("USD 3", {"usd": 3}),
        ("2$", {"usd": 2}),
        ("$1.5k", {"usd": 1500}),
        ("100k tokens", {"tokens": 100_000}),
        ("2 million tokens", {"tokens": 2_000_000}),
        ("20 steps, 1 hour", {"steps": 20, "seconds": 3600}),
        ("$2 and 5 minutes", {"usd": 2, "seconds": 300}),
        ("90s", {"seconds": 90}),
        ("10m", {"seconds": 600}),
    ],
)
def test_an_amount_is_understood(said: str | float, meant: dict[str, float]) -> None:
    assert budget(said) == meant
    assert check_budget(said) == meant


@pytest.mark.parametrize("said", ["", "lots", "-1", "2 bananas", "$2, $3", "2e400", "$", "two dollars", "2 euros"])
def test_what_is_no_amount_is_refused_with_examples(said: str) -> None:
    with pytest.raises(ValueError, match=r"\$2"):
        budget(said)
    with pytest.raises(InvalidArgument, match="budget: expected"):
        check_budget(said)


@pytest.mark.parametrize("given", [True, [], {"eur": 2}, {"usd": -1}, {"usd": "2"}, {"tokens": 1.5}, "5.5 steps"])
def test_a_wrong_budget_names_its_field(given: Any) -> None:
    with pytest.raises(InvalidArgument, match="budget"):
        check_budget(given)
