"""The runs of one command line: the stages of each seed, and the record that each leaves."""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import asdict, dataclass

from baselines.cora.draws import Draw
from baselines.cora.networks import Classifier, Encoder
from baselines.cora.papers import Papers, open_graph
from baselines.cora.settings import CoraSettings
from baselines.cora.stages import Course, classify, pretrain
from gnn_core.data.graph import Graph
from gnn_core.measure import machine
from gnn_core.measure.metrics import split_fields
from gnn_core.measure.records import begin_run, keep_record, require_writable
from gnn_core.measure.run_record import DatasetInfo, EpochRecord, ProcessMemory, RunRecord
from gnn_core.measure.timing import lap_to_vector, slowest_lap
from gnn_core.streams import optional_output
from gnn_core.training.state import Diverged
from tf_mirrored.strategy import Replicas


def run_all(settings: CoraSettings, world: Replicas) -> int:
    """Train once per seed; the exit code, 1 if a run failed. Raises UsageError on every rank."""
    with optional_output():  # whoever reads it may go: each run has a record to write
        return _run_all(settings, world)


def _run_all(settings: CoraSettings, world: Replicas) -> int:
    with world.errors_on_all_ranks():
        graph = open_graph(settings, _printer(world))
        papers = Papers.of(graph)
        if world.rank == 0:
            require_writable(settings.records)
    _printer(world)(_opening(settings, graph, world))
    records = [_run(settings, seed, graph, papers, world) for seed in settings.seed_list]
    accuracies = [record.final["test_accuracy"] for record in records if record.status == "ok"]
    if len(accuracies) > 1:
        found = [100 * (value or 0.0) for value in accuracies]
        _printer(world)(
            f"{len(found)} seeds   test accuracy {statistics.fmean(found):.2f} "
            f"+- {statistics.stdev(found):.2f} %"
        )
    return int(any(record.status != "ok" for record in records))


@dataclass
class TrainedModel:
    """What training leaves."""

    classifier: Classifier
    course: Course
    pretrain_losses: list[float]  # nats per paper, of each epoch
    pretrain_seconds: float


def learn(settings: CoraSettings, papers: Papers, seed: int, world: Replicas) -> TrainedModel:
    """Both stages for one seed. Raises Diverged."""
    draw = Draw(papers, settings, seed)
    with world.strategy.scope():
        encoder = Encoder(settings, papers.num_papers, papers.words.shape[1], seed)
        classifier = Classifier(encoder, papers.num_classes, seed)
    losses: list[float] = []
    began = time.perf_counter()
    if settings.pretrain_epochs:
        pretrain(encoder, draw, world, losses.append)
    seconds = time.perf_counter() - began
    return TrainedModel(classifier, classify(classifier, draw, world), losses, seconds)


def _run(
    settings: CoraSettings, seed: int, graph: Graph, papers: Papers, world: Replicas
) -> RunRecord:
    """Train with one seed and write the record; a run that fails leaves one too."""
    record = begin_run(
        strategy=settings.strategy,
        config=settings.recorded(seed),
        config_digest=settings.digest(seed),
        dataset=DatasetInfo.of(graph),
        rank_hosts=world.replica_hosts,
    )
    try:
        record = _completed(record, learn(settings, papers, seed, world), settings, world)
    except Diverged as error:  # on every rank alike, since they all see the same loss
        record = record.finished("failed", str(error))
    except Exception as error:
        sys.excepthook(*sys.exc_info())
        record = record.finished("failed", f"{type(error).__name__}: {error}")
        if world.rank == 0:
            keep_record(record, settings.records)
        raise SystemExit(1) from None  # the others cannot be waited for
    if world.rank == 0:
        path = keep_record(record, settings.records)
        print(f"seed {seed:<6} {_result(record)}  {path}", flush=True)
    return record


def _completed(
    record: RunRecord, trained: TrainedModel, settings: CoraSettings, world: Replicas
) -> RunRecord:
    """The record of a run that went well; the seconds of an epoch are the slowest process's."""
    course = trained.course
    everyones = world.gather([lap_to_vector(lap).tolist() for lap in course.laps])
    epochs = [
        EpochRecord.of(
            epoch,
            tally,
            slowest_lap([laps[epoch] for laps in everyones]),
            lr=settings.head_lr,
            warm_up=epoch == 0,
            num_sampled_edges=0,
            valid_accuracy=course.valid[epoch],
        )
        for epoch, tally in enumerate(course.tallies)
    ]
    final: dict[str, float | int | None] = {"best_epoch": course.best_epoch}
    for split, tally in course.scores.items():
        final |= split_fields(split, tally)
    memory = world.gather(asdict(machine.process_memory()))
    seconds = trained.pretrain_seconds + sum(epoch.seconds for epoch in epochs)
    weights = [*trained.classifier.encoder.variables, *trained.classifier.head.trainable_variables]
    numbers = sum(int(weight.value.shape.num_elements()) for weight in weights)
    return record.finished(
        "ok",
        epochs=epochs,
        step_losses=[epoch.train_loss for epoch in epochs],
        memory=[ProcessMemory(**values) for values in memory],
        final=final,
        training_seconds=seconds,
        evaluation_seconds=sum(lap.get("evaluate", 0.0) for lap in course.laps),
        num_parameters=numbers,
        allreduce_bytes_per_step=4 * numbers if world.num_replicas > 1 else 0,
        notes=_notes(trained),
    )


def _notes(trained: TrainedModel) -> list[str]:
    losses = trained.pretrain_losses
    if not losses:
        return []
    return [
        f"pre-training, {len(losses)} epochs in {trained.pretrain_seconds:.1f} s, is in no epoch "
        f"of this record: loss {losses[0]:.4f} to {losses[-1]:.4f} nats per paper"
    ]


def _opening(settings: CoraSettings, graph: Graph, world: Replicas) -> str:
    sizes = " / ".join(str(len(graph.split(split))) for split in ("train", "valid", "test"))
    return (
        f"{settings.model} on {graph.name}, train / valid / test {sizes} papers; "
        f"{settings.strategy}, {world.num_replicas} "
        f"replica{'s' if world.num_replicas > 1 else ''}"
    )


def _result(record: RunRecord) -> str:
    if record.status != "ok":
        return f"{record.status}: {record.error}"
    valid, test = (100 * (record.final[f"{split}_accuracy"] or 0.0) for split in ("valid", "test"))
    return (
        f"valid {valid:.1f} %  test {test:.1f} %  best epoch "
        f"{int(record.final['best_epoch'] or 0) + 1}  {record.training_seconds:.1f} s"
    )


def _printer(world: Replicas):  # type: ignore[no-untyped-def]
    """A function that prints a line, on rank 0 only."""

    def print_line(line: str) -> None:
        if world.rank == 0:
            print(line, flush=True)

    return print_line
