"""Money: what turns may cost, what they did cost, and how the two are kept apart."""
