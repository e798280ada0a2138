"""Hooks: commands and HTTP calls of an agent's own that may deny a tool call or replace its output."""
