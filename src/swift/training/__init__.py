"""Training: one Trainer, objectives that are passed in, checkpoints that are whole or absent."""
