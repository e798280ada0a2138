"""Webhooks: who is told, signed, delivered at least once, logged."""
