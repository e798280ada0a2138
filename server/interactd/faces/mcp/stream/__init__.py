"""MCP messages over a stream of bytes or events: framing, batches, and the way in and out of one connection."""
