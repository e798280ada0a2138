"""What only the SQLite store promises: files, threads, locks, bytes."""
