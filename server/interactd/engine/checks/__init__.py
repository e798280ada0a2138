"""What may enter the engine: every argument is checked here, before anything is written."""
