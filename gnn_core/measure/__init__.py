"""What a run measures and writes: its record, its output and where its seconds went.

`metrics` (sums and counts that merge over ranks), `timing` (seconds by section), `machine`,
`processes` and `resources/` (hardware, other processes, memory and CPU of each rank), `console`
and `tensorboard` (shown while it runs), `trace` (what a rank did when), `run_record` (the schema),
`records` and `strict_json` (one JSON line per run, written and read), `soundness` (values that
cannot be true).

Called by `gnn_core.training`, the trainers, the sweep and the benchmarks; `gnn_core.report` reads
what they write.
"""
