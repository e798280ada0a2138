"""The faces of the engine: MCP on every transport, and the control protocol of the command line.

`build` wires them once; `app.py` hands it the engine, the daemon its connections.
"""

from __future__ import annotations

from interactd.faces.build import Faces, build

__all__ = ["Faces", "build"]
