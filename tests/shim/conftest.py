"""Fixtures of the shim's tests."""

from support.hosts import home

__all__ = ["home"]
