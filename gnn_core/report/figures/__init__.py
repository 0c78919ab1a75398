"""Figures: out of the same rows and records as the tables; `gallery` knows them all."""
