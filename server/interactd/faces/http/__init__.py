"""MCP over HTTP on one port: Streamable HTTP at `/mcp`, SSE at `/sse`, `/health`; token, Host and Origin in front."""
