"""Tests of the Store protocol for every backend (this folder), and of what is SQLite's own (sqlite/)."""
