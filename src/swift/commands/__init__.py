"""One file a command: the story from arguments to result, top to bottom."""
