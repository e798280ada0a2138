"""The real small weights, for this folder's tests."""

from __future__ import annotations

from support.weights import weights

__all__ = ["weights"]
