"""Cora without message passing: a paper is known by its words, its place in the graph, or both."""
