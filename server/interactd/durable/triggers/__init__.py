"""Triggers: when they are due, and starting what is due exactly once."""
