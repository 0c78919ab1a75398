"""Bring a graph of one's own: tables, arrays and archives of them -> a prepared graph with a name.

`command` is the command line (`python -m gnn_core.data.datasets import`), `build.import_graph` the
same as a function.

Tables are read by pyarrow: it parses a block of CSV without holding the interpreter, so that
threads parse side by side; it reads Parquet, gzip, bzip2 and Zstandard, and NumPy sees its columns
without a copy. pandas would bring objects for text, and polars an engine for queries that nothing
here asks. It is imported when a table is read, so that no trainer pays for it.
"""
