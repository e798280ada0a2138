"""The embedded model: llama.cpp in a supervised child process, with weights that `interactd setup` fetched.

An honest offline fallback, not a recommendation (docs/embedded.md). Nothing heavy is imported here: the child
process imports this package too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interactd.models.embedded.catalog import Embedded
    from interactd.models.embedded.settings import EmbeddedSettings

__all__ = ["Embedded", "EmbeddedSettings"]


def __getattr__(name: str) -> Any:
    if name == "Embedded":
        from interactd.models.embedded.catalog import Embedded

        return Embedded
    if name == "EmbeddedSettings":
        from interactd.models.embedded.settings import EmbeddedSettings

        return EmbeddedSettings
    raise AttributeError(name)
