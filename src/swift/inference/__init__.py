"""Answering at the terminal: a chat, or the rows of a data set."""
