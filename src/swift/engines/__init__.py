"""Backends that answer requests: one protocol, one file a backend."""
