"""Strategies that take turns: who they are, one run from start to end, and a plan of many runs."""
