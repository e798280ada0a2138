"""What agents can call: code, files, the web they are allowed to see."""
