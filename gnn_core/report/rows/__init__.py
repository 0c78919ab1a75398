"""Records -> rows: what was repeated is joined, and each row finds what it is compared with."""
