"""What watches a run while it goes on: transformers' TrainerCallbacks, one file each."""
