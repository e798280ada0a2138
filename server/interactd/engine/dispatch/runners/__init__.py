"""Several daemons on one store: who holds what, and taking over from those that died."""
