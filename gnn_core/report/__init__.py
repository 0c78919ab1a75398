"""The right end of the flow: what a run measured, and the tables and pictures made from it.

Measured while it runs: `metrics` (sums and counts that merge over ranks), `timing` (where the
seconds went), `machine` and `processes` (what it ran on, and beside whom), `resources/` (what each
rank used), `narrate` and `curves` (shown meanwhile).

Kept: `schema` (the record of a run), `soundness` (what cannot be true of one), `records` and
`strict_json` (one JSON line per run, out and in), `bench_file` (what a benchmark found).

Told: `rows/` (records that belong together), `tables/`, `pictures/`, `prediction/`, `documents`
(tables inside Markdown), `loose_figures` (numbers without a record), `answers`, `notebook`, `page`.

Commands: `analysis`, `scaling`, `page`, `loose_figures`, and `sweep/`, which makes runs by a plan.
"""
