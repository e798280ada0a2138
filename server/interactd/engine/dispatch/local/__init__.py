"""The dispatcher of one process: no table, no poll, no thread."""
