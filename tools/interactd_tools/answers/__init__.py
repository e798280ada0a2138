"""From what the engine returns to text a model can act on, on a diet."""
