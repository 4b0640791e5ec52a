"""The studio: train, chat, evaluate, export and serve from a browser; run folders jobs are its only state."""
