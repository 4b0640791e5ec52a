"""`swift check`: the mathematics of a run on the user's own model and rows, through the code that trains and serves."""
