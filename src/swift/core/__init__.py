"""Errors, log, optional imports and crash-safe files: what every layer above may use. Standard library only."""
