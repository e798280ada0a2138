"""One attempt at an interaction: history in, model call, steps and outcome out."""
