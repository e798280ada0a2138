"""How the built-in tools describe themselves to a model: short, and the same bytes every time."""

from __future__ import annotations

from collections.abc import Sequence

from interactd.nouns import Json


def declare(name: str, description: str, properties: Json, *, required: Sequence[str] = ()) -> Json:
    """Return a function declaration with flat parameters."""
    schema: Json = {"type": "object", "properties": properties}
    if required:
        schema["required"] = list(required)
    return {"type": "function", "name": name, "description": description, "parameters": schema}
