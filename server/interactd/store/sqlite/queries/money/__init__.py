"""The ledger: a line for each call and attempt, and a running total for each turn, session, agent's day and day."""
