"""The right end of the flow: what a run measured, and the tables made from it.

In flow order: `metrics` (sums and counts that merge over ranks), `timing` (where the seconds went),
`machine` (what it ran on), `resource_files` -> `resource_history` -> `resources` (what a rank used,
which a thread of `resource_sampler` looks at), `schema` (the record of a run), `soundness` (what
cannot be true of one), `records` (one JSON line per run, out and in), `summary` (records -> rows).
Then the tables: `cells` (what a table is), `tables` (speed, accuracy), `agreement` (loss curves),
`footprint` (memory), `resource_table` (cores, memory, traffic), `benches` (benchmark files;
`data_figures` makes one), `figures` (pictures), `documents` (tables inside Markdown), `analysis`
(the command line). `narrate` and `curves` show a run while it lasts.
"""
