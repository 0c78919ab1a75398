"""Partitions of a graph: feature rows stored by part, for graphs that one host does not hold."""
