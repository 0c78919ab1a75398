"""A look at a graph before anything is trained on it: measures, and drawings of them."""
