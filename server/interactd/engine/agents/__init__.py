"""The agent loop: a run that calls the model and its tools in turns until there is an answer."""
