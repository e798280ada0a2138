"""Sessions, interactions and artifacts as MCP resources: listing, reading, watching, completing their ids."""
