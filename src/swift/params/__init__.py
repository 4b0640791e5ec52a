"""The contract of the command line: every command and flag, declared once. Standard library only."""
