"""The default store: one SQLite file, one writer thread, a few readers."""

from interactd.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
