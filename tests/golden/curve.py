"""The golden loss curve: how it is made, and where it is stored.

    python -m tests.golden.curve

writes tests/golden/curve.json anew, from the repository root. Do so only when a change is meant to
move the curve, and say in CHANGELOG.md why it moves.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from gnn_core.config import RunConfig
from gnn_core.data import datasets
from gnn_core.measure.resources.resource_sampler import ResourceSampler
from gnn_core.training.elastic_state import ElasticState
from gnn_core.training.trainer import Trainer
from horovod_gnn.learner import TorchLearner
from horovod_gnn.parallel import SingleProcess

STORED = Path(__file__).with_name("curve.json")
SETTINGS: dict[str, Any] = {
    "dataset": "synthetic:papers=2000",
    "epochs": 2,
    "layers": 2,
    "hidden": 32,
    "fanouts": (10, 5),
    "dropout": 0.3,
    "input_dropout": 0.1,
    "global_batch_size": 100,
    "lr": 0.01,
    "weight_decay": 1e-4,
    "precision": "fp64",
    "device": "cpu",
    "seed": 3,
}


def train(cache_dir: Path) -> dict[str, Any]:
    """The run, made now; its graph is kept in `cache_dir`."""
    config = RunConfig(**SETTINGS, cache_dir=str(cache_dir), quiet=True)
    graph = datasets.load(config.dataset, cache_dir=cache_dir)
    world = SingleProcess()
    trainer = Trainer("single", config, graph, world, TorchLearner.of(config, graph, world))
    record = trainer.run(ElasticState(ResourceSampler(config.sample_seconds)))
    assert record.status == "ok", record.error
    assert record.step_losses is not None
    sizes = {"nodes": graph.num_nodes, "edges": graph.num_edges}
    return {
        "settings": {name: config.to_dict()[name] for name in SETTINGS},
        "graph": {**sizes, "fingerprint": graph.fingerprint},
        "step_losses": record.step_losses,
        "train_accuracy": [epoch.train_accuracy for epoch in record.epochs],
        "valid_accuracy": [epoch.valid_accuracy for epoch in record.epochs],
        "final": record.final,
    }


def main() -> int:
    """Store the curve of today's code."""
    with tempfile.TemporaryDirectory() as folder:
        curve = train(Path(folder))
    STORED.write_text(json.dumps(curve, indent=1) + "\n", encoding="utf-8")
    print(f"{STORED}: {len(curve['step_losses'])} steps")
    return 0


if __name__ == "__main__":
    sys.exit(main())
