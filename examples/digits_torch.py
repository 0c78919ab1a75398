"""Digits in PyTorch: a training script of one's own under Ringsage's launchers and records.

    python examples/digits_torch.py
    horovodrun -np 2 python examples/digits_torch.py --strategy horovod
    torchrun --nproc-per-node 2 examples/digits_torch.py --strategy ddp
    python -m gnn_core.report.analysis results/digits

The 1,797 images of 8 x 8 pixels come with scikit-learn. There is no graph: ranks, update and record
are Ringsage's, all else is plain PyTorch. The loss does not depend on the number of ranks.
"""

import argparse
import sys
from pathlib import Path

if not __package__:  # started as a file: put the repository root, not this folder, on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from gnn_core.launch import guarded, require_packages

if __name__ == "__main__":
    require_packages("torch", "sklearn")

import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

import ringsage
from gnn_core import seeding
from gnn_core.data.loader import rank_slice
from gnn_core.measure.run_record import DatasetInfo
from gnn_core.training.run_log import RunLog
from gnn_core.training.state import StepSums
from horovod_gnn.optimizer import Adam
from horovod_gnn.update import Allreduce

TRAIN, TEST, BATCH, EPOCHS, LR, SEED = 1437, 360, 128, 10, 0.005, 0
DIGITS = DatasetInfo("digits", splits={"train": TRAIN, "test": TEST})


def main() -> int:
    """Train a small network, each rank on its share of each batch."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--strategy", default="single", choices=("single", "horovod", "ddp"))
    strategy = parser.parse_args().strategy
    torch.set_num_threads(1)  # the work is small, and so one process and each rank have the same
    world = ringsage.join(strategy)
    images, labels = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
    images, split = images.float() / 16, seeding.permutation(len(images), SEED, "split")
    torch.manual_seed(SEED)  # the same weights on every rank
    model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
    update = Allreduce(model, Adam(model.parameters(), LR), world)
    log = RunLog(strategy, world, DIGITS, {"epochs": EPOCHS, "global_batch_size": BATCH, "lr": LR})
    for epoch in range(EPOCHS):
        order = split[seeding.permutation(TRAIN, SEED, "order", epoch)]
        for start in range(0, TRAIN, BATCH):
            batch = order[start : start + BATCH]  # of all ranks
            mine = batch[rank_slice(len(batch), world.rank, world.world_size)]
            update.clear()
            logits = model(images[mine])
            loss = cross_entropy(logits, labels[mine], reduction="sum")
            (loss / len(batch)).backward()  # the sum over ranks is the mean over the batch
            right = (logits.argmax(1) == labels[mine]).sum()
            sums = update(StepSums(loss.item(), right.item(), 0, 0), LR, log.watch)
            log.step(sums.loss_sum, sums.num_correct, len(batch))
        log.epoch(LR)
    with torch.no_grad():
        right = model(images[split[TRAIN:]]).argmax(1) == labels[split[TRAIN:]]
    accuracy = right.double().mean().item()
    loss = sums.loss_sum / len(batch)
    if file := log.finish({"test_accuracy": accuracy}, "results/digits"):
        print(f"last loss {loss:.6f}, test accuracy {accuracy:.4f}, record {file}")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main, meets_by_rank=True))
