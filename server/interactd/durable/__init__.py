"""What outlives a request and needs no model: schedules that start turns, and news of them that must arrive."""
