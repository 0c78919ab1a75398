"""Replicas: how those of a model meet. The only file that names tf.distribute.

`start` makes one of three worlds: one replica; several in one process (MirroredStrategy); one in
each of several processes (MultiWorkerMirroredStrategy). The trainer uses them all alike: it runs a
function on every replica of its process and adds up a vector over the replicas of all.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gnn_core.config import OPTIONS, RunConfig
from gnn_core.data.exchange import Transport
from gnn_core.joining import call_in_time
from gnn_core.launch import launched_size
from gnn_core.training.socket_transport import SocketTransport
from gnn_core.training.world import Lost, Stopped, World
from gnn_core.usage import SharedUsageError, UsageError
from tf_mirrored.cluster import Cluster, find_cluster, silent_workers, wait_for_departure
from tf_mirrored.devices import devices_of
from tf_mirrored.quiet import without_greeting

if TYPE_CHECKING:  # importing it takes seconds, and the MPI world must be asked before
    import tensorflow as tf

_LATER_SECONDS = 40.0  # than the monitor of the ranks TensorFlow takes a silent worker for lost
_LEAST_SECONDS = 10.0  # to connect, once all workers are there


def join(config: RunConfig | None) -> Replicas:
    """Join the other replicas as the settings say; see `start`.

    Without settings, which this process could not read, the others are to hear of it: only workers
    have others.
    """
    if config is None:
        return start("multiworker")
    return start(
        config.strategy,
        config.replicas,
        config.threads,
        config.device,
        config.start_timeout,
        config.collective_timeout,
    )


def require_equal_slices(config: RunConfig, world: Replicas) -> None:
    """Raise UsageError unless a global batch is cut into one slice of equal size per replica."""
    replicas = world.num_replicas
    if rest := config.global_batch_size % replicas:
        nearest = config.global_batch_size - rest
        raise UsageError(
            f"--global-batch-size: expected a multiple of {replicas}, one slice of equal size for "
            f"each replica, got {config.global_batch_size}: use {nearest or replicas} or another "
            "number of replicas"
        )


def start(
    name: str,
    replicas: int | None = None,
    threads: int = 1,
    device: str = "auto",
    timeout_seconds: float = OPTIONS["start_timeout"].default,
    silence_seconds: float = OPTIONS["collective_timeout"].default,
) -> Replicas:
    """Join the other replicas.

    Args:
        name: one of `gnn_core.strategies.keras_strategies()`.
        replicas: of `mirrored`; None takes every GPU, or two on a CPU.
        threads: cores of one replica.
        device: `auto`, `cpu` or `cuda`.
        timeout_seconds: how long to wait for the other workers of `multiworker` to come.
        silence_seconds: how long to wait for one of them that shows no sign of life.

    Raises:
        UsageError: a machine, an environment or a launcher that does not fit.
    """
    if name != "mirrored" and (replicas or 1) > 1:
        raise SharedUsageError(
            f"--replicas {replicas}: expected 1 with the {name} strategy"
            + ("; its workers are processes: mpirun -np N" if name == "multiworker" else "")
        )
    if name != "multiworker" and launched_size() > 1:
        raise SharedUsageError(
            f"the {name} strategy is one process, but {launched_size()} copies of it were "
            "launched: start one, or use --strategy multiworker"
        )
    deadline = time.monotonic() + timeout_seconds
    cluster = find_cluster(timeout_seconds) if name == "multiworker" else None
    if cluster is None:  # left over from a job of several workers: TensorFlow would read it
        os.environ.pop("TF_CONFIG", None)
    _choose_backend()
    with without_greeting():
        import keras  # noqa: F401 - brings a library with the same to say
        import tensorflow as tf

    devices = devices_of(name, replicas, threads, device, cluster)
    if name == "one":
        strategy = tf.distribute.OneDeviceStrategy(devices[0])
    elif cluster is None:
        across = None  # NCCL
        if devices[0].startswith("CPU"):
            across = tf.distribute.ReductionToOneDevice()
        strategy = tf.distribute.MirroredStrategy(devices, cross_device_ops=across)
    else:
        left = max(deadline - time.monotonic(), _LEAST_SECONDS)
        strategy = call_in_time(
            lambda: _join(cluster, silence_seconds), left, lambda: _unconnected(cluster)
        )
    return Replicas(name, strategy, devices, cluster, silence_seconds)


def _choose_backend() -> None:
    """Have Keras compute with TensorFlow, whatever the user's settings of Keras say.

    Those choose another backend or number format for other programs; here the curve is a function
    of the seed and our settings alone. Below a device Keras finds no settings, and leaves none.
    Raises SharedUsageError where Keras has been imported with another backend before.
    """
    if keras := sys.modules.get("keras"):
        if (found := keras.config.backend()) != "tensorflow":
            raise SharedUsageError(
                f"expected Keras with its TensorFlow backend, got {found}: set "
                "KERAS_BACKEND=tensorflow before Keras is imported"
            )
        return
    os.environ |= {"KERAS_BACKEND": "tensorflow", "KERAS_HOME": os.devnull}


class Replicas(World):
    """All replicas of a job; `rank` and `world_size` are of processes."""

    def __init__(
        self,
        name: str,
        strategy: tf.distribute.Strategy,
        devices: list[str],
        cluster: Cluster | None,
        silence_seconds: float = OPTIONS["collective_timeout"].default,
    ):
        super().__init__()
        self.name = name
        self.strategy = strategy
        self.devices = devices
        self._cluster = cluster
        self._all_reduce: dict[Any, Callable[[tf.Tensor], tf.Tensor]] = {}
        self.rank = cluster.index if cluster else 0
        self.world_size = len(cluster.workers) if cluster else 1
        self._num_replicas = int(strategy.num_replicas_in_sync)
        if self.world_size > 1:
            self.monitor_ranks(silence_seconds, computes_in_waits=True)
        self.local_rank = self.rank_hosts[: self.rank].count(self.rank_hosts[self.rank])

    @property
    def num_replicas(self) -> int:
        """Replicas of the model over all processes."""
        return self._num_replicas

    @property
    def local_replicas(self) -> range:
        """Those of this process."""
        each = self._num_replicas // self.world_size
        return range(self.rank * each, (self.rank + 1) * each)

    @property
    def replica_hosts(self) -> list[str]:
        """The host of each replica."""
        each = self._num_replicas // self.world_size
        return [host for host in self.rank_hosts for _ in range(each)]

    def on_each(self, work: Callable[[Any], Any], inputs: list[Any]) -> list[Any]:
        """In a traced function: `work(inputs[i])` on the i-th replica of this process."""
        import tensorflow as tf

        first = self.local_replicas[0]

        def mine(everybodys: list[Any]) -> Any:
            index = 0
            if len(everybodys) > 1:
                # A tensor while it is traced, but one of a known value.
                replica = tf.distribute.get_replica_context().replica_id_in_sync_group
                index = int(tf.get_static_value(replica)) - first
            return work(everybodys[index])

        done = self.strategy.run(mine, args=(inputs,))
        return list(self.strategy.experimental_local_results(done))

    def add_up(self, vector: tf.Tensor) -> tf.Tensor:
        """In `work` of `on_each`: the sum of the vector over all replicas."""
        import tensorflow as tf

        if self._num_replicas == 1:
            return tf.identity(vector)
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, vector)

    @contextlib.contextmanager
    def noticing_losses(self) -> Iterator[None]:
        """Around what meets other processes: raises Lost, or Stopped, when one of them has gone."""
        import tensorflow as tf

        try:
            with self.waiting():  # in C, where only the monitor of the ranks can end it
                yield
        except (
            tf.errors.UnavailableError,
            tf.errors.AbortedError,
            tf.errors.CancelledError,
            tf.errors.DeadlineExceededError,
        ):
            if self._cluster is None:
                raise
            if self.stop_signal is not None:  # the launcher has told the others, and this one
                raise Stopped from None
            gone = silent_workers(self._cluster)
            who = ", ".join(f"worker {i} ({self._cluster.workers[i]})" for i in gone)
            raise Lost(
                f"{who or 'some worker'} answers no more; start all again, with --resume to "
                "go on from the last checkpoint"
            ) from None

    # --- between processes: sums alone, so that one kind of collective does --------

    def gather(self, value: Any) -> list[Any]:
        """A JSON-able value of every process."""
        if self.world_size == 1:
            return [json.loads(json.dumps(value))]
        data = np.frombuffer(json.dumps(value).encode(), np.uint8)
        sizes = np.zeros(self.world_size, np.int32)
        sizes[self.rank] = len(data)
        sizes = self._sum_of_processes(sizes)
        width = -(-int(sizes.max()) // 4) * 4
        rows = np.zeros((self.world_size, width), np.uint8)
        rows[self.rank, : len(data)] = data
        flat = self._sum_of_processes(rows.view(np.int32).ravel())
        rows = flat.view(np.uint8).reshape(self.world_size, width)
        return [json.loads(row[:n].tobytes()) for row, n in zip(rows, sizes, strict=True)]

    def sum(self, vector: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The sum of `vector` over the processes."""
        return vector if self.world_size == 1 else self._sum_of_processes(vector)

    def broadcast(self, array: npt.NDArray[Any], root: int = 0) -> npt.NDArray[Any]:
        """The array of process `root`."""
        if self.world_size == 1:
            return array
        bits = np.zeros(-(-array.nbytes // 4), np.int32)
        if self.rank == root:
            bits.view(np.uint8)[: array.nbytes] = np.ascontiguousarray(array).view(np.uint8).ravel()
        bits = self._sum_of_processes(bits)
        whole = bits.view(np.uint8)[: array.nbytes]
        return whole.view(array.dtype).reshape(array.shape).copy()

    def row_transport(self) -> Transport | None:
        """How rows of features come from other processes; None where there are none."""
        return SocketTransport(self, _LEAST_SECONDS) if self.world_size > 1 else None

    def _sum_of_processes(self, vector: npt.NDArray[Any]) -> npt.NDArray[Any]:
        import tensorflow as tf

        if vector.dtype not in self._all_reduce:

            @tf.function(input_signature=[tf.TensorSpec([None], vector.dtype)], autograph=False)
            def add(vector: tf.Tensor) -> tf.Tensor:
                # Placed on the replica's device: a value of the caller is on none.
                return self.on_each(lambda v: self.add_up(tf.identity(v)), [vector])[0]

            self._all_reduce[vector.dtype] = add
        with self.noticing_losses():
            return self._all_reduce[vector.dtype](tf.constant(vector)).numpy()

    def leave(self) -> None:
        """Part: worker 0, which coordinates the others, last."""
        if self._cluster is None or self.world_size == 1:
            return
        self.barrier()
        if self.monitor is not None:
            self.monitor.close()
        if self.rank == 0:
            wait_for_departure(self._cluster)


def _join(cluster: Cluster, silence_seconds: float) -> tf.distribute.Strategy:
    import tensorflow as tf

    os.environ["TF_CONFIG"] = cluster.to_tf_config()
    # Automatic would be the same on a CPU: ring allreduce over gRPC; NCCL where there are GPUs.
    automatic = tf.distribute.experimental.CommunicationImplementation.AUTO
    options = tf.distribute.experimental.CommunicationOptions(implementation=automatic)
    _be_patient(len(cluster.workers), silence_seconds + _LATER_SECONDS)
    return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)


def _unconnected(cluster: Cluster) -> str:
    silent = ", ".join(f"worker {i} ({cluster.workers[i]})" for i in silent_workers(cluster))
    return f"TensorFlow still waits for {silent or 'some of them'} to connect"


def _be_patient(num_workers: int, seconds: float) -> None:
    """Let the monitor of the ranks decide who is lost: TensorFlow would after 5 s of silence.

    A worker that is killed is noticed at once all the same, by its connections. The strategy keeps
    a coordination service that is configured already, which only this private module can do.
    """
    from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
    from tensorflow.python.eager import context

    workers = coordination_config_pb2.CoordinatedJob(name="worker", num_tasks=num_workers)
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader="/job:worker/replica:0/task:0",
        heartbeat_timeout_in_ms=round(1000 * seconds),
        coordinated_jobs=[workers],
    )
