"""The training strategies: the program and the launcher of each, and what is known of it.

Records, reports, sweeps, benchmarks, the deployment of jobs and `--help` read this registry; a
strategy is added by an entry in `STRATEGIES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

_KERAS_FLAGS = dict.fromkeys(("--strategy", "--replicas"), "it is one of tf_mirrored/train.py")
_SERVER_FLAGS = dict.fromkeys(
    (
        *("--workers", "--servers", "--standby", "--staleness", "--compress"),
        *("--role", "--coordinator", "--secret-file", "--journal", "--replay"),
    ),
    "it is one of baselines/param_server.py",
)
_OTHERS_FLAGS = {**_KERAS_FLAGS, **_SERVER_FLAGS}
_SINGLE_PROCESS = {
    **_OTHERS_FLAGS,
    **dict.fromkeys(
        ("--start-timeout", "--collective-timeout"), "it has no other ranks to wait for"
    ),
    "--scale-lr": "it has one rank, so there is nothing to scale by",
}
KERAS_REFUSES: Mapping[str, str] = {
    **_SERVER_FLAGS,
    "--pin": "replicas share a process; --threads tells how many cores each may use",
    "--table-on": "the features stay in host memory",
    **dict.fromkeys(
        ("--model-sha256", "--heads", "--residual", "--norm", "--jumping-knowledge"),
        "it has GraphSAGE alone; horovod_gnn/train.py has all models",
    ),
    "--label-smoothing": "only the PyTorch trainers have it",
    "--balance": "in a step of TensorFlow waiting cannot be told from computing",
}
"""What every strategy of tf_mirrored/train.py refuses, which is one program for several."""


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """One way to train, on one rank or on several."""

    name: str
    framework: str  # "torch" or "keras"
    program: str  # path from the root of the repository
    help: str  # one line, shown behind an example of its command
    # The strategy of one process in the same framework, its own name for that one itself.
    single: str
    # Flag -> value, given to the program before the user's flags; `{ranks}` is their number.
    arguments: Mapping[str, str] = field(default_factory=dict)
    # The words that start its ranks, `{ranks}` among them; empty: the program starts alone.
    launcher: tuple[str, ...] = ()
    launcher_starts_python: bool = False  # torchrun takes the program without `python`
    # What may coordinate its ranks, as `RunRecord.controller` names it.
    controllers: tuple[str, ...] = ()
    refuses: Mapping[str, str] = field(default_factory=dict)  # flag -> why it has no use for it
    # Whether its loss curve is that of one process, whatever the number of ranks. Reports neither
    # compare curves nor call accuracies equal where it is not.
    same_curve: bool = True
    probe: str | None = None  # program that measures an allreduce between its ranks
    elastic: bool = False  # whether ranks may leave and join while it trains

    @property
    def is_single(self) -> bool:
        """Whether it is one process and one rank, which the others are measured against."""
        return self.single == self.name

    def words(self, ranks: int) -> list[str]:
        """The words of a command line that starts it, for flags to follow.

        They are those that a user types in the root of the repository: no word is an absolute path.
        """
        return [
            *self._launched(ranks, self.program),
            *(word.format(ranks=ranks) for pair in self.arguments.items() for word in pair),
        ]

    def probe_words(self, ranks: int) -> list[str]:
        """The same for the program that measures an allreduce. ValueError where it has none."""
        if self.probe is None:
            raise ValueError(f"expected a strategy with a probe, got {self.name}")
        return self._launched(ranks, self.probe)

    def _launched(self, ranks: int, program: str) -> list[str]:
        launcher = [word.format(ranks=ranks) for word in self.launcher]
        return [*launcher, *([] if self.launcher_starts_python else ["python"]), program]


_ALL = (
    Strategy(
        name="single",
        framework="torch",
        program="baselines/single.py",
        help="PyTorch, one process",
        single="single",
        refuses=_SINGLE_PROCESS,
    ),
    Strategy(
        name="horovod",
        framework="torch",
        program="horovod_gnn/train.py",
        help="Horovod, one process per rank",
        single="single",
        launcher=("horovodrun", "-np", "{ranks}"),
        controllers=("mpi", "gloo"),
        refuses=_OTHERS_FLAGS,
        probe="horovod_gnn/probe.py",
        elastic=True,
    ),
    Strategy(
        name="ddp",
        framework="torch",
        program="baselines/ddp.py",
        help="DDP, one process per rank",
        single="single",
        launcher=("torchrun", "--standalone", "--nproc-per-node", "{ranks}"),
        launcher_starts_python=True,
        controllers=("gloo", "nccl"),
        refuses=_OTHERS_FLAGS,
        probe="baselines/ddp_probe.py",
    ),
    Strategy(
        name="one",
        framework="keras",
        program="tf_mirrored/train.py",
        arguments={"--strategy": "one"},
        help="Keras, one process",
        single="one",
        refuses=KERAS_REFUSES,
    ),
    Strategy(
        name="mirrored",
        framework="keras",
        program="tf_mirrored/train.py",
        arguments={"--strategy": "mirrored", "--replicas": "{ranks}"},
        help="Keras, replicas in one process",
        single="one",
        refuses=KERAS_REFUSES,
    ),
    Strategy(
        name="multiworker",
        framework="keras",
        program="tf_mirrored/train.py",
        arguments={"--strategy": "multiworker"},
        help="Keras, one process per replica",
        single="one",
        launcher=("mpirun", "-np", "{ranks}"),
        controllers=("grpc",),
        refuses=KERAS_REFUSES,
    ),
    Strategy(
        name="param-server",
        framework="torch",
        program="baselines/param_server.py",
        arguments={"--workers": "{ranks}"},
        help="parameter server and workers",
        single="single",
        refuses={
            **_KERAS_FLAGS,
            "--pin": "workers of a host do not know of each other",
            **dict.fromkeys(
                ("--partitions", "--fetch-window", "--fetch-cache", "--share-parts"),
                "workers do not send each other rows: each host has the whole graph",
            ),
        },
    ),
)
STRATEGIES: dict[str, Strategy] = {strategy.name: strategy for strategy in _ALL}
"""By name, in the order in which tables and figures show them."""


def order_of(name: str) -> int:
    """The place of a strategy in the order of tables and figures, from 0."""
    return list(STRATEGIES).index(name)


def keras_strategies() -> tuple[str, ...]:
    """The names that tf_mirrored/train.py takes for --strategy."""
    return tuple(name for name, one in STRATEGIES.items() if one.framework == "keras")
