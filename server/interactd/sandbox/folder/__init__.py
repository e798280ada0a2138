"""Reading and changing a folder that hostile code may be changing at the same time."""
