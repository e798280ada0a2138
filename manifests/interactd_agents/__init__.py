"""The agent folders that ship with interactd."""
