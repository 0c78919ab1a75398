"""Runs many trainings that take turns: plans (`python -m gnn_core.sweep`) and `compare`.

No run imports it; `gnn_core.deploy.sweep_rules` reads plans with it, the benchmarks start runs.
"""
