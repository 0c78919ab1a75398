"""Tables, figures and pages made from run records. No run imports it.

`rows` (repeated runs together, and their speed-ups), `rounds` and `series` (rows that belong
together), `table` (what a table is), `tables/`, `figures/`, `prediction/`, `generated_blocks`
(tables inside Markdown), `sentences`, `loose_figures` (numbers without a record), `page`.

Commands: `analysis`, `scaling`, `page`, `track`, `loose_figures`, `curve_figure`, `link_figure`.
"""
