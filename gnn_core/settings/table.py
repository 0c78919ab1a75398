"""Every setting of a run: its name, type, default, bounds and meaning, in one table.

`--help`, the reader of flags and files, the checks and the printed summary are all made from it.
`curve=True` marks what the training loss depends on; `per_data_set=True` what a recipe fills in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gnn_core.models import DEFAULT, JUMPS, LINK_LOSSES, MODELS, NORMS, PREDICTORS
from gnn_core.settings.options import LINK, Option, option, options_of
from gnn_core.settings.recipes import MOST_LAYERS
from gnn_core.settings.server_table import ServerSettings
from gnn_core.settings.watch_table import WatchSettings
from gnn_core.strategies import keras_strategies

_WHAT, _MODEL, _OPTIMISATION = "what to train on", "model", "optimisation"
_EVALUATION, _MACHINE, _OUTPUT, _LAUNCH = "evaluation", "numbers and machine", "output", "launch"


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """The fields of `Settings` but for those of a parameter server.

    A field that a recipe fills has the type that it has then, since nobody meets it unfilled.
    """

    # What to train on
    dataset: str = option(
        "synthetic",
        _WHAT,
        "data set, such as cora or synthetic:papers=1e6, or a graph folder",
        metavar="NAME",
        curve=True,
    )
    data_root: str | None = option(
        None, _WHAT, "folder of the published raw files (default: $RINGSAGE_DATA)", metavar="DIR"
    )
    cache_dir: str | None = option(
        None,
        _WHAT,
        "folder of prepared graphs (default: $RINGSAGE_CACHE, else ~/.cache/ringsage)",
        metavar="DIR",
    )
    task: str = option(
        "node",
        _WHAT,
        "what is predicted: the class of a node, or a missing citation",
        choices=("node", "link"),
        curve=True,
    )
    partitions: str | None = option(
        None,
        _WHAT,
        "folder of a partition of the graph (python -m gnn_core.data.partition): a rank reads the "
        "features of its own parts there, and gets others from their ranks",
        metavar="DIR",
    )
    partition_topology: bool = option(
        False,
        _WHAT,
        "with --partitions: read adjacency rows of a rank's own parts alone, and let the owners of "
        "other nodes draw their neighbours; so it is, too, where the graph has no indices.npy",
    )
    verify: bool = option(False, _WHAT, "check every number of the graph, not a sample of them")

    # Model
    model: str = option(
        DEFAULT,
        _MODEL,
        "kind of layers: GraphSAGE, GCN, GAT, GIN, or a class of your own in a Python file, whose "
        "code is run (docs/models.md)",
        choices=MODELS,
        curve=True,
        newer=True,
        or_file=True,
    )
    model_sha256: str | None = option(
        None,
        _MODEL,
        "SHA-256 that the file of an own --model must have (default: whatever it has)",
        metavar="HEX",
        curve=True,
        newer=True,
    )
    layers: int = option(
        None,
        _MODEL,
        "layers of the model, which is also the number of hops",
        per_data_set=True,
        low=1,
        high=MOST_LAYERS,
        curve=True,
    )
    hidden: int = option(
        None, _MODEL, "width of the hidden layers", per_data_set=True, low=1, curve=True
    )
    fanouts: tuple[int, ...] = option(
        None,
        _MODEL,
        "neighbours drawn per node and hop, from the targets outward; -1 is all",
        per_data_set=True,
        metavar="15,10,5",
        curve=True,
    )
    aggregator: str = option(
        "mean",
        _MODEL,
        "how the neighbours' messages are joined",
        choices=("mean", "sum", "max", "none"),
        curve=True,
    )
    heads: int = option(
        4, _MODEL, "heads of attention, with --model gat", low=1, high=1024, curve=True, newer=True
    )
    residual: bool = option(
        False, _MODEL, "add the input of a layer to its output", curve=True, newer=True
    )
    norm: str = option(
        "none",
        _MODEL,
        "how hidden layers are normalised; batch: by the targets of all ranks",
        choices=NORMS,
        curve=True,
        newer=True,
    )
    jumping_knowledge: str = option(
        "none",
        _MODEL,
        "how the outputs of all layers are joined in front of a last dense layer",
        choices=JUMPS,
        curve=True,
        newer=True,
    )
    dropout: float = option(
        None,
        _MODEL,
        "share of hidden values dropped in training",
        per_data_set=True,
        low=0,
        below=1,
        curve=True,
    )
    input_dropout: float = option(
        None,
        _MODEL,
        "share of input features dropped in training",
        per_data_set=True,
        low=0,
        below=1,
        curve=True,
    )

    # Link prediction
    hold_out: str | None = option(
        None,
        LINK,
        "which edges are held out: two references of each of the newest papers, any at random (by "
        "the seed), or as published (default: per data set)",
        choices=("newest", "random", "published"),
        curve=True,
    )
    held_out: float | None = option(
        None,
        LINK,
        "share of the papers (newest) or, for each of validation and test, of the edges (random) "
        "(default: 0.05, with random 0.1)",
        above=0,
        below=1,
        curve=True,
    )
    svd_width: int = option(
        128,
        LINK,
        "features of papers that have none, out of an SVD of the training edges",
        low=1,
        curve=True,
    )
    negatives: int | None = option(
        None,
        LINK,
        "papers that each citation is distinguished from in training (default: 64)",
        low=1,
        curve=True,
    )
    negatives_kind: str | None = option(
        None,
        LINK,
        "which papers those are: any (uniform), or any that is not newer than the citing one "
        "(dated; the default where years are known and the negatives are not shared)",
        choices=("uniform", "dated"),
        curve=True,
        newer=True,
    )
    negatives_pool: int | None = option(
        None,
        LINK,
        "papers that the negatives of a step are drawn from, drawn anew in each step: fewer papers "
        "are embedded then; 0 draws from all (default: per data set, or 0 with --shared-negatives)",
        low=0,
        curve=True,
        newer=True,
    )
    shared_negatives: bool = option(
        False, LINK, "all citations of a step are distinguished from the same ones", curve=True
    )
    hide_targets: bool = option(
        True, LINK, "no message passes along an edge of the step", curve=True
    )
    edges_per_epoch: int | None = option(
        None,
        LINK,
        "training edges of an epoch, drawn anew each time; 0 is all (default: per data set)",
        low=0,
        curve=True,
    )
    link_loss: str | None = option(
        None,
        LINK,
        "softmax: mostly the cross-entropy of the cited paper among its negatives (the default); "
        "bce: each pair by itself, a citation or not",
        choices=LINK_LOSSES,
        curve=True,
        newer=True,
    )
    predictor: str | None = option(
        None,
        LINK,
        "what a pair is judged by: its embeddings alone (mlp), its structure beside them, such as "
        "common neighbours (structure), or also how alike the features of the papers and of their "
        "neighbours are (content), or the embeddings of their common neighbours (ncn) (default: "
        "per data set)",
        choices=PREDICTORS,
        curve=True,
        newer=True,
    )
    predictor_layers: int = option(
        3, LINK, "layers of the predictor, each --hidden wide", low=1, high=MOST_LAYERS, curve=True
    )
    candidates: int = option(
        1000, LINK, "papers that each held-out reference is ranked against", low=1
    )
    eval_edges: int = option(
        1000, LINK, "validation edges ranked after an epoch; 0 is all, as at the end", low=0
    )

    # Optimisation
    epochs: int = option(
        None, _OPTIMISATION, "passes over the training targets", per_data_set=True, low=1
    )
    global_batch_size: int = option(
        None,
        _OPTIMISATION,
        "targets per step over all ranks together",
        per_data_set=True,
        low=1,
        curve=True,
    )
    optimizer: str = option(
        "adam", _OPTIMISATION, "update rule", choices=("adam", "sgd"), curve=True
    )
    lr: float = option(None, _OPTIMISATION, "learning rate", per_data_set=True, above=0, curve=True)
    weight_decay: float = option(
        None, _OPTIMISATION, "L2 pull on the weights", per_data_set=True, low=0, curve=True
    )
    lr_schedule: str = option(
        "constant",
        _OPTIMISATION,
        "how the learning rate moves after the warm-up",
        choices=("constant", "cosine", "step"),
        curve=True,
    )
    lr_step_epochs: int | None = option(
        None,
        _OPTIMISATION,
        "epochs between two cuts (default with step: a third of the epochs)",
        low=1,
        curve=True,
    )
    lr_gamma: float | None = option(
        None,
        _OPTIMISATION,
        "factor of each cut (default with step: 0.5)",
        above=0,
        high=1,
        curve=True,
    )
    warmup_epochs: int = option(
        0,
        _OPTIMISATION,
        "epochs over which the learning rate rises from nothing",
        low=0,
        curve=True,
    )
    label_smoothing: float = option(
        0.0,
        _OPTIMISATION,
        "share of the training label that is spread over all classes",
        low=0,
        below=1,
        curve=True,
        newer=True,
    )
    scale_lr: bool = option(
        False, _OPTIMISATION, "multiply the learning rate by the number of ranks", curve=True
    )
    patience: int = option(
        None,
        _OPTIMISATION,
        "evaluations without a gain before stopping; 0 never stops early",
        per_data_set=True,
        low=0,
    )
    seed: int = option(
        0,
        _OPTIMISATION,
        "the one random seed: weights, order, neighbours, dropout",
        low=0,
        below=2**63,
        curve=True,
    )

    # Evaluation
    eval: str = option(
        "exact",
        _EVALUATION,
        "with all neighbours, or with sampled ones",
        choices=("exact", "sampled"),
    )
    eval_every: int = option(
        None, _EVALUATION, "epochs from one evaluation to the next", per_data_set=True, low=1
    )
    eval_fanouts: tuple[int, ...] | None = option(
        None,
        _EVALUATION,
        "fan-outs with --eval sampled (default then: those of training)",
        metavar="15,10,5",
    )
    eval_nodes: int = option(
        0,
        _EVALUATION,
        "nodes of each split that --eval sampled takes, evenly spaced; 0 is all",
        low=0,
    )

    # Numbers and machine
    precision: str = option(
        "fp32",
        _MACHINE,
        "number format of the computation",
        choices=("fp32", "bf16", "fp64"),
        curve=True,
    )
    table_dtype: str = option(
        "stored",
        _MACHINE,
        "number format of the features that ranks read; stored leaves them as they are",
        choices=("stored", "fp16", "bf16"),
        curve=True,
        newer=True,
    )
    device: str = option(
        "auto",
        _MACHINE,
        "where to compute; auto takes a GPU if there is one",
        choices=("auto", "cpu", "cuda"),
    )
    table_on: str = option(
        "auto",
        _MACHINE,
        "where the features lie if a GPU computes: on it (cuda) or in host "
        "memory (cpu); auto is on it if they fit in half of its free memory",
        choices=("auto", "cpu", "cuda"),
    )
    feature_store: str = option(
        "auto",
        _MACHINE,
        "where features are read from: a memory map (memory), or a file with a cache of fixed "
        "size (disk); auto is disk if they do not fit into memory",
        choices=("auto", "memory", "disk"),
    )
    memory_limit: str | None = option(
        None,
        _MACHINE,
        "memory that a process may take, such as 8GiB (default: its share of what the host or "
        "container has)",
        metavar="SIZE",
    )
    disk_cache: str | None = option(
        None,
        _MACHINE,
        "memory for rows of features that are on disk, such as 2GiB (default: what the memory "
        "limit leaves)",
        metavar="SIZE",
    )
    threads: int = option(1, _MACHINE, "threads per rank", low=1, high=1024)
    pin: bool = option(False, _MACHINE, "tie each rank to its own cores")
    prefetch: int = option(2, _MACHINE, "batches prepared ahead; 0 prepares in the loop", low=0)
    assign: str = option(
        "auto",
        _MACHINE,
        "which rank computes which targets of a batch: consecutive ones (slices), or ones that lie "
        "near each other in the graph (locality); auto is locality if clusters of the graph are "
        "found in little time beside training",
        choices=("auto", "slices", "locality"),
        newer=True,
    )
    balance: int = option(
        0,
        _MACHINE,
        "cut the batches in proportion to the speed of the ranks, found anew every so many steps; "
        "0 gives all ranks alike",
        low=0,
        newer=True,
    )
    fetch_window: int = option(
        8,
        _MACHINE,
        "with --partitions: steps whose rows of other ranks are fetched together",
        low=1,
        high=1024,
    )
    fetch_cache: str = option(
        "256MiB",
        _MACHINE,
        "with --partitions: memory of a rank for rows of other ranks, such as 2GiB; 0 keeps none",
        metavar="SIZE",
    )
    share_parts: bool = option(
        False, _MACHINE, "with --partitions: ranks of one host read each other's parts themselves"
    )

    # Output
    records: str = option("results/runs", _OUTPUT, "folder of run records", metavar="DIR")
    checkpoint_dir: str | None = option(
        None, _OUTPUT, "folder of checkpoints (default: none are saved)", metavar="DIR"
    )
    checkpoint_every_steps: int = option(
        0, _OUTPUT, "steps between checkpoints; 0 saves after each epoch only", low=0
    )
    resume: bool = option(False, _OUTPUT, "go on from the newest checkpoint of --checkpoint-dir")
    tensorboard: str | None = option(
        None, _OUTPUT, "folder of TensorBoard curves (default: none are written)", metavar="DIR"
    )
    progress: str = option(
        "auto",
        _OUTPUT,
        "what is shown meanwhile: a bar, a line for each epoch, or the result "
        "alone (off); auto is a bar on a terminal, elsewhere lines of at most 20 epochs",
        choices=("auto", "bar", "lines", "off"),
    )
    quiet: bool = option(False, _OUTPUT, "print errors alone; the record is written all the same")
    sample_seconds: float = option(
        1.0,
        _OUTPUT,
        "from one look at CPU, memory and traffic to the next; 0 is never",
        low=0,
        high=3600,
    )

    # Launch
    world_size: int | None = option(
        None, _LAUNCH, "ranks that are meant; another number is an error (default: any)", low=1
    )
    strategy: str = option(
        "mirrored",
        _LAUNCH,
        "how Keras replicas meet: one has none to meet, mirrored are in one process, multiworker "
        "in a process each",
        choices=keras_strategies(),
    )
    replicas: int | None = option(
        None, _LAUNCH, "replicas of mirrored (default: one per GPU, 2 on a CPU)", low=1, high=1024
    )
    start_timeout: float = option(
        120.0,
        _LAUNCH,
        "seconds to wait for the other ranks to start and to join",
        above=0,
        high=1_000_000,
    )
    collective_timeout: float = option(
        60.0,
        _LAUNCH,
        "seconds to wait for a rank that is stopped, cut off or does nothing; for "
        "one that computes there is no limit",
        low=5,
    )
    dry_run: bool = option(False, _LAUNCH, "print every setting and where it came from, and stop")


@dataclass(frozen=True, kw_only=True)
class Settings(ServerSettings, WatchSettings, TrainingSettings):
    """The fields of `gnn_core.config.RunConfig`, neither filled nor checked."""


OPTIONS: Mapping[str, Option] = options_of(Settings)
