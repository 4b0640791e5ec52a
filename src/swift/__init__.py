"""One command line for the life of a language model after pre-training."""
