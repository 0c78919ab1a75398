"""What `gnn_core.config` is made of: the table of settings and how they are read, filled, checked.

table -> flags, yaml_file -> recipes -> rules; `options` is what one row of the table is.
"""
