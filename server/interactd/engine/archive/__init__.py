"""Exports and imports: a zip of sessions with everything that belongs to them, checked before a row of it is kept."""
