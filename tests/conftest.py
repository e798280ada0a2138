"""Fixtures every test may use."""

from __future__ import annotations

import signal

import pytest


def pytest_configure() -> None:
    """What a shell starts in the background ignores Ctrl-C, and so would every process that a test starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
