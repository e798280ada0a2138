"""What some hosts do with a result that others do not.

Several hosts give their model `structuredContent` alone as soon as there is one, and drop the text (Claude Code, Codex,
VS Code and what is built on it, Copilot, opencode). Ours holds only ids and figures, so their model would never see an
answer. Those hosts get the fields in `_meta`, where a program still finds them.
"""

from __future__ import annotations

from interactd_tools.context import ToolResult

META_KEY = "interactd/result"
_STRUCTURED_HIDES_TEXT = (
    "claude-code",
    "claude code",
    "codex",
    "copilot",
    "vscode",
    "visual studio code",
    "opencode",
    "cursor",
)


def structured_hides_text(client_name: str | None) -> bool:
    """Whether this host shows its model structuredContent in place of the text."""
    name = (client_name or "").lower()
    return any(part in name for part in _STRUCTURED_HIDES_TEXT)


def fit(result: ToolResult, client_name: str | None) -> ToolResult:
    """Return the result in the form that this host's model can read."""
    if result.structured is None or not structured_hides_text(client_name):
        return result
    result.meta[META_KEY] = result.structured
    result.structured = None
    return result
