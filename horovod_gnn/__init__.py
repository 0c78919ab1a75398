"""GraphSAGE in PyTorch, data-parallel over Horovod's ring allreduce."""
