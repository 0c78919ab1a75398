"""Benchmarks: what they share (`frame`), and that of the sampler (`sampling`).

The others lie with what they measure: `horovod_gnn.bench`, `tf_mirrored.bench`,
`baselines.start_bench`, `baselines.ranks_bench`, `baselines.param_server_bench`,
`horovod_gnn.probe`.
"""
