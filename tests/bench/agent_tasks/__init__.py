"""Small tasks for an agent, and how they are graded."""
