"""Agents over MCP: their runs, the files they leave, the environments they work in, and which there are."""
