"""Strategies that take turns on one graph: who they are, and a run of one from start to end."""
