"""Approvals as state: which calls are asked about, what was answered, and what holds when nobody answers."""
