"""Records -> rows: repeated runs share a row, and each row has its speed-ups."""
