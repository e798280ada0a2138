"""The small test model's real weights, fetched once by our own setup into a cache that all test runs share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from interactd import paths
from interactd.errors import NotSetUp
from interactd.models.embedded import setup

TEST_MODEL = "smollm2-135m"


def cache() -> Path:
    """Where the tests keep weights: `INTERACTD_TEST_WEIGHTS`, else a folder in the user's cache."""
    given = os.environ.get("INTERACTD_TEST_WEIGHTS")
    return Path(given) if given else Path.home() / ".cache" / "interactd-tests"


def fetch(name: str = TEST_MODEL) -> Path:
    """Return the folder that holds the model's weights by their hash: fit for `INTERACTD_WEIGHTS`.

    Skips the test, with the reason, where they are not here and no source can be reached.
    """
    try:
        return setup.run(name, paths=paths.find({"INTERACTD_HOME": str(cache())})).parent
    except NotSetUp as error:
        pytest.skip(f"needs the weights of {name}: {error.message}")


@pytest.fixture(scope="session")
def weights() -> Path:
    """The folder with SmolLM2's weights. Its answers are unusable: test the machinery with it, never quality."""
    pytest.importorskip("xllamacpp")
    return fetch()
