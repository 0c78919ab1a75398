"""The devices of this process: GPUs, or parts of its CPU, and the threads that compute on them."""

from __future__ import annotations

import os

from gnn_core.usage import UsageError
from tf_mirrored.cluster import Cluster

DEFAULT_REPLICAS = 2  # on a CPU


def devices_of(
    name: str, replicas: int | None, threads: int, device: str, cluster: Cluster | None
) -> list[str]:
    """Set up threads and devices; those of this process's replicas. Raises UsageError."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU") if device != "cpu" else []
    if device == "cuda" and not gpus:
        raise UsageError(
            "--device cuda: expected a GPU that TensorFlow can use, found none; use --device cpu, "
            "or install a TensorFlow with CUDA"
        )
    many = name == "mirrored"
    count = (replicas or len(gpus) or DEFAULT_REPLICAS) if many else 1
    if gpus and count > len(gpus):
        raise UsageError(
            f"--replicas {count}: expected at most one per GPU, got {len(gpus)} GPUs; use fewer, "
            "or --device cpu"
        )
    # An operation may use the cores of one replica; so many replicas compute at a time.
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(max(count, 2 if cluster else 1))
    if gpus:
        first = launched_local_rank() % len(gpus) if cluster else 0
        chosen = gpus[first : first + count]
        tf.config.set_visible_devices(chosen, "GPU")
        return [f"GPU:{index}" for index in range(count)]
    tf.config.set_visible_devices([], "GPU")
    if many:
        cpu = tf.config.list_physical_devices("CPU")[0]
        logical = [tf.config.LogicalDeviceConfiguration()] * count
        tf.config.set_logical_device_configuration(cpu, logical)
    return [f"CPU:{index}" for index in range(count)]


def launched_local_rank() -> int:
    """Which of its host's processes a launcher started this one as."""
    names = ("OMPI_COMM_WORLD_LOCAL_RANK", "HOROVOD_LOCAL_RANK", "LOCAL_RANK")
    given = (os.environ.get(name, "") for name in names)
    return next((int(text) for text in given if text.isdecimal()), 0)
