"""What a command will do, decided before anything is loaded. Pure: no torch, no network, no files but small ones."""
