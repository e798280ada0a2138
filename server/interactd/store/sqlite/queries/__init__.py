"""The SQL, by noun. Each function takes a connection inside a transaction that its caller began."""
