"""The MCP face: one server object (`server`) over streams (`stream`, `eras`) and HTTP (`interactd.faces.http`)."""
