"""What is kept for how long: a clock that is not believed blindly, and what deleted sessions leave outside."""
