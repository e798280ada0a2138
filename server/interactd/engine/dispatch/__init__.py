"""Who runs when: the line, cancelling, taking up what was left, sweeping."""
