"""Looks at one framework in a process of its own, so that a broken one takes nothing else down.

A framework may die of an illegal instruction, hang on a lock or print pages while it is imported.
What a probe has to say is one JSON object on a line with a mark; all else is ignored.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["MARK", "PROBES", "TWO_RANKS", "ProbeResult", "collect", "probe"]

MARK = "RINGSAGE-PROBE "

_PREAMBLE = f"""
import json, os, sys
def report(**facts):
    sys.stdout.write({MARK!r} + json.dumps(facts) + chr(10))
    sys.stdout.flush()
def loaded(part):
    with open("/proc/self/maps") as maps:
        return sorted({{os.path.realpath(l.split(None, 5)[-1].strip()) for l in maps if part in l}})
"""

PROBES: dict[str, str] = {
    "torch": """
import torch
with open("/proc/cpuinfo") as info:
    flags = next((set(l.split()) for l in info if l.startswith(("flags", "Features"))), set())
report(version=torch.__version__, threads=torch.get_num_threads(), cuda=torch.version.cuda,
     capability=torch.backends.cpu.get_cpu_capability(), gpus=torch.cuda.device_count(),
     bf16=bool(flags & {"avx512_bf16", "amx_bf16", "bf16"}),
     sum=float(torch.ones(1000).sum()))
""",
    "horovod": """
import horovod, horovod.torch as hvd
report(version=horovod.__version__, mpi=bool(hvd.mpi_built()), gloo=bool(hvd.gloo_built()),
     nccl=bool(hvd.nccl_built()), cuda=bool(hvd.cuda_built()), libmpi=loaded("/libmpi.so"),
     wakes=hasattr(hvd, "wake_on_enqueue_built"))
""",
    "mpi4py": """
import mpi4py
mpi4py.rc.initialize = False
from mpi4py import MPI
report(version=mpi4py.__version__, library=MPI.Get_library_version().split(",")[0].strip(),
     libmpi=loaded("/libmpi.so"))
""",
    "numba": """
import numba, numpy
@numba.njit(nogil=True)
def total(values):
    result = 0
    for value in values:
        result += value
    return result
report(version=numba.__version__, numpy=numpy.__version__, total=int(total(numpy.arange(100))))
""",
    "tensorflow": """
import tensorflow as tf, keras
report(version=tf.__version__, keras=keras.__version__, sum=float(tf.reduce_sum(tf.ones([1000]))),
     gpus=len(tf.config.list_physical_devices("GPU")))
""",
    "torch_geometric": """
import torch, torch_geometric
from torch_geometric.nn import SAGEConv
out = SAGEConv(3, 2)(torch.ones(4, 3), torch.tensor([[0, 1], [2, 3]]))
report(version=torch_geometric.__version__, shape=list(out.shape))
""",
    "ogb": """
from importlib.metadata import version
from ogb.nodeproppred import Evaluator
report(version=version("ogb"), metric=Evaluator("ogbn-arxiv").eval_metric)
""",
}
"""What is run for each framework; each calls `report` with the facts it found."""

TWO_RANKS = """
import os, time
import torch, horovod.torch as hvd
torch.set_num_threads(1)
hvd.init()
start = time.perf_counter()
for _ in range(20):
    total = hvd.allreduce(torch.full((250_000,), 2.0 ** hvd.rank()), op=hvd.Sum, name="doctor")
milliseconds = (time.perf_counter() - start) / 20 * 1000
report(rank=hvd.rank(), size=hvd.size(), low=float(total.min()), high=float(total.max()),
     milliseconds=milliseconds, prefix=sys.prefix, libmpi=loaded("/libmpi.so"))
hvd.shutdown()
"""


@dataclass(frozen=True)
class ProbeResult:
    """What a process said: `facts` (one object for each mark), `error` (one line, or empty).

    `absent` says that the module is not installed, as opposed to broken.
    """

    facts: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""
    absent: bool = False
    seconds: float = 0.0


def probe(
    code: str,
    timeout_seconds: float,
    launcher: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> ProbeResult:
    """Run `code` in a Python of its own (under `launcher`, if any) and collect to it."""
    python = "python" if launcher else sys.executable
    command = [*launcher, python, "-P", "-c", _PREAMBLE + code]
    return collect(command, timeout_seconds, env)


def collect(
    command: Sequence[str], timeout_seconds: float, env: Mapping[str, str] | None
) -> ProbeResult:
    """Run a command for at most `timeout_seconds` and collect its marked lines."""
    began = time.monotonic()
    try:
        process = subprocess.Popen(
            list(command),
            env=dict(env) if env is not None else None,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as failure:
        return ProbeResult(error=f"{command[0]} does not start: {failure.strerror}")
    try:
        output, _ = process.communicate(timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        _end(process)
        return ProbeResult(error=f"no answer in {timeout_seconds:.0f} s")
    except BaseException:
        _end(process)
        raise
    facts, absent = [], False
    for line in output.splitlines():
        _, mark, rest = line.partition(MARK)
        if mark and rest.startswith("{"):
            facts.append(json.loads(rest))
        absent = absent or line.startswith("ModuleNotFoundError")
    error = "" if process.returncode == 0 and facts else _why(process.returncode, output)
    return ProbeResult(facts, error, absent and bool(error), time.monotonic() - began)


def _end(process: subprocess.Popen[str]) -> None:
    """End the process and what it started: politely, so that mpirun ends its ranks, then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.communicate(timeout=5)
            return
        except subprocess.TimeoutExpired:
            continue
        except (ProcessLookupError, PermissionError):
            process.communicate()
            return


def _why(status: int, output: str) -> str:
    """One line on why a process failed: the signal, or the last line that looks like an error."""
    if status < 0:
        try:
            return f"died of {signal.Signals(-status).name}"
        except ValueError:
            return f"died of signal {-status}"
    lines = [line.strip() for line in output.splitlines() if line.strip(" -")]
    errors = [line for line in lines if "Error" in line or "error" in line]
    last = (errors or lines or ["it said nothing"])[-1]
    return last if len(last) <= 200 else f"{last[:197]}..."
