"""Conversations, templates and encoding: the one place where prompts are made. No torch, no transformers."""
