"""Triggers, their executions, webhooks and their deliveries."""
