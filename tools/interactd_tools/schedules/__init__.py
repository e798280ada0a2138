"""The tool set `schedules`: triggers that start turns at their times, webhooks that tell of how turns ended."""
