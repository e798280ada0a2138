"""Scripts that run on the other side: `supervisor` in a sandbox, `spawner` beside the daemon. Standard library only."""
