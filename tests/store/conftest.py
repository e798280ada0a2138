"""The backends that the contract tests run against: a further one is one more entry here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from interactd.store.port import Store
from interactd.store.sqlite import SqliteStore

BACKENDS: dict[str, Callable[[Path], Store]] = {"sqlite": lambda folder: SqliteStore(folder / "interactd.db")}


@pytest.fixture(params=list(BACKENDS))
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """Makes stores, not opened, that all see the same data."""
    backend = BACKENDS[request.param]
    return lambda: backend(tmp_path)


@pytest.fixture
async def store(make_store: Callable[[], Store]) -> AsyncIterator[Store]:
    store = make_store()
    await store.open()
    yield store
    await store.aclose()
