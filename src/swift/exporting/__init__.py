"""Turns a trained checkpoint into what others can use: merged, quantized, converted or pushed."""
