"""Reading a page for an agent without a sandbox, under the same policy."""
