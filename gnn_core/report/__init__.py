"""Tables, figures and pages made from run records. No run imports it.

`rows/` (records that belong together), `tables/`, `figures/`, `prediction/`, `generated_blocks`
(tables inside Markdown), `loose_figures` (numbers without a record), `answers`, `notebook`, `page`.

Commands: `analysis`, `scaling`, `page`, `track`, `loose_figures`, `curve_figure`, `link_figure`.
"""
