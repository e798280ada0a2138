"""The file tools: view, write, replace, list, delete, search."""
