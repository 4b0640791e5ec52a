"""Optimizers of our own, whose state is tensors alone."""
