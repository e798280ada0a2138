"""`interactd triggers` and `interactd webhooks`."""
