"""Where agents' code runs: launchers, environments, egress proxy, credentials."""
