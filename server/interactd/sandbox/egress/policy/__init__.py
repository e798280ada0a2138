"""What may be reached, and with which credential: read from an environment's `network` and `env`."""
