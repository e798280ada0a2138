"""Sessions and interactions as MCP resources: listing, reading, watching, completing their ids."""
