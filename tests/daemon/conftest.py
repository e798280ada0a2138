"""Fixtures of the daemon's tests."""

from support.hosts import home

__all__ = ["home"]
