"""Tables: each module makes one out of rows or records, `cells` says what a table is."""
