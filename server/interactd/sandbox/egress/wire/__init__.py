"""Bytes: streams, TLS in memory, HTTP/1.1 heads and bodies, the first message of a TLS client."""
