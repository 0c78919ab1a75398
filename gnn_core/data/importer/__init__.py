"""Bring a graph of one's own: tables, arrays and archives of them -> a prepared graph with a name.

`command` is the command line (`python -m gnn_core.data.datasets import`), `build` the same as a
function. Tables are read by pyarrow: it parses CSV in several threads at millions of rows a second,
reads Parquet, gzip and Zstandard, and hands its columns to NumPy without a copy. pandas does the
same at a fifth of the speed and polars brings an engine for queries that nothing here asks. It is
imported when a table is read, so that no trainer pays for it.
"""
