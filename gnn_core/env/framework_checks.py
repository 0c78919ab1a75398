"""What the doctor finds out about the frameworks, and whether two ranks really add up."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gnn_core.env.findings import Finding, ok, problem, warning
from gnn_core.env.probes import PROBES, TWO_RANKS, ProbeResult, probe
from gnn_core.env.stamp import same_place

__all__ = ["framework_checks", "judge", "judge_libmpi", "judge_ranks", "rank_checks"]

_INSTALL = "make install"

_WITHOUT: dict[str, tuple[bool, str]] = {
    "torch": (True, "nothing trains without it"),
    "horovod": (True, "only baselines/single.py works without it"),
    "numba": (True, "the sampler does not run without it"),
    "mpi4py": (False, "only some tests need it"),
    "tensorflow": (False, "only the Keras baseline (tf_mirrored) needs it"),
    "torch_geometric": (False, "only tests and the Planetoid readers' comparison need it"),
    "ogb": (False, "only the official evaluator needs it"),
}
"""module -> (whether missing it is a problem, what does not work without it)."""


def framework_checks(timeout_seconds: float) -> list[Finding]:
    """Probe every framework, a few at a time, each in a process of its own."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        futures = {name: pool.submit(probe, code, timeout_seconds) for name, code in PROBES.items()}
        results = {name: future.result() for name, future in futures.items()}
    findings = [judge(name, result) for name, result in results.items()]
    return [*findings, *judge_libmpi(results, Path(sys.prefix))]


def judge(name: str, result: ProbeResult) -> Finding:
    """The finding for one framework from the result of its probe."""
    needed, use = _WITHOUT[name]
    bad = problem if needed else warning
    if result.absent:
        return bad(name, "not installed", f"{use}: {_INSTALL}")
    if result.error:
        advice = f"{use}; to see all of it: python -c 'import {name}'"
        if "SIGILL" in result.error:
            advice = f"{use}; this processor lacks instructions that the package was built with"
        return bad(name, f"does not work: {result.error}", advice)
    return _JUDGES[name](result.facts[0])


def judge_libmpi(results: Mapping[str, ProbeResult], prefix: Path) -> list[Finding]:
    """Whether Horovod and mpi4py load one and the same libmpi, that of the environment."""
    loaded = {
        name: [str(path) for path in results[name].facts[0].get("libmpi", [])]
        for name in ("horovod", "mpi4py")
        if name in results and results[name].facts
    }
    if not loaded:
        return []
    own = str((prefix / "lib").resolve())
    text = "; ".join(
        f"{name} loads {' and '.join(paths) or 'none'}" for name, paths in loaded.items()
    )
    if all(len(paths) == 1 and str(Path(paths[0]).parent) == own for paths in loaded.values()):
        return [ok("libmpi", text)]
    return [
        problem(
            "libmpi",
            f"{text}; expected the one in {own}",
            "two MPIs in one job crash or run every rank alone: unset LD_LIBRARY_PATH, take other "
            "MPIs off PATH, then make install",
        )
    ]


def rank_checks(timeout_seconds: float) -> list[Finding]:
    """Run two ranks under horovodrun and under mpirun and check what they add up to."""
    return [_two_ranks(name, timeout_seconds) for name in ("horovodrun", "mpirun")]


def _two_ranks(name: str, timeout_seconds: float) -> Finding:
    launcher = Path(sys.prefix) / "bin" / name
    if not launcher.exists():
        return problem(f"{name} -np 2", f"{launcher} is not there", _INSTALL)
    result = probe(TWO_RANKS, timeout_seconds, launcher=(str(launcher), "-np", "2"))
    return judge_ranks(f"{name} -np 2", result, Path(sys.prefix))


def judge_ranks(name: str, result: ProbeResult, prefix: Path) -> Finding:
    """The finding for a job of two ranks that each contributed 2**rank."""
    retry = f"to see all of it: {name} python -c 'import horovod.torch as hvd; hvd.init()'"
    if result.error:
        return problem(name, f"failed: {result.error}", retry)
    ranks = sorted(fact["rank"] for fact in result.facts)
    if ranks == [0, 0] or any(fact["size"] != 2 for fact in result.facts):
        sizes = [fact["size"] for fact in result.facts]
        return problem(
            name,
            f"each process was alone (sizes {sizes}): launcher and library are of different MPIs",
            "see mpirun and libmpi above",
        )
    if ranks != [0, 1]:
        return problem(name, f"expected an answer of ranks 0 and 1, got {ranks}", retry)
    sums = {fact[end] for fact in result.facts for end in ("low", "high")}
    if sums != {3.0}:
        return problem(name, f"the ranks' sum of 1 and 2 is {sorted(sums)}", _INSTALL)
    others = {
        str(fact["prefix"]) for fact in result.facts if not same_place(fact["prefix"], prefix)
    }
    if others:
        return problem(
            name,
            f"`python` is another environment's: {', '.join(sorted(others))}",
            f"put {prefix / 'bin'} first on PATH: . .venv/bin/activate",
        )
    slowest = max(fact["milliseconds"] for fact in result.facts)
    return ok(
        name, f"2 ranks agree; allreduce of 1 MB {slowest:.1f} ms, in all {result.seconds:.0f} s"
    )


def _torch(facts: dict[str, Any]) -> Finding:
    native = "native" if facts["bf16"] else "emulated"
    text = (
        f"{facts['version']}, {facts['threads']} threads, {facts['capability']}, bf16 {native}, "
        f"{facts['gpus']} GPUs"
    )
    if facts["sum"] != 1000.0:
        return problem("torch", f"{text}: 1000 ones add up to {facts['sum']}", _INSTALL)
    return ok("torch", text if facts["bf16"] else f"{text} (--precision bf16 will not be faster)")


def _horovod(facts: dict[str, Any]) -> Finding:
    parts = {name: "yes" if facts[name] else "no" for name in ("mpi", "gloo", "nccl", "cuda")}
    text = f"{facts['version']}, " + ", ".join(f"{name} {built}" for name, built in parts.items())
    if not facts["mpi"]:
        return problem("horovod", f"{text}: built without MPI", _INSTALL)
    if not facts["gloo"]:
        return warning(
            "horovod", f"{text}: built without Gloo", "elastic runs need it: make install"
        )
    if not facts["wakes"]:
        return warning(
            "horovod",
            f"{text}: a collective waits for the next tick of HOROVOD_CYCLE_TIME",
            "short steps are slower for it; make install builds one that begins at once",
        )
    return ok("horovod", text)


def _mpi4py(facts: dict[str, Any]) -> Finding:
    text = f"{facts['version']} on {facts['library']}"
    if "Open MPI v4." not in facts["library"]:
        return problem("mpi4py", text, "it found another MPI than the environment's Open MPI 4.1")
    return ok("mpi4py", text)


def _numba(facts: dict[str, Any]) -> Finding:
    if facts["total"] != 4950:
        return problem("numba", f"{facts['version']}: a compiled sum is wrong", _INSTALL)
    return ok("numba", f"{facts['version']} with numpy {facts['numpy']}: compiles")


def _tensorflow(facts: dict[str, Any]) -> Finding:
    return ok("tensorflow", f"{facts['version']}, Keras {facts['keras']}, {facts['gpus']} GPUs")


def _torch_geometric(facts: dict[str, Any]) -> Finding:
    return ok("torch_geometric", f"{facts['version']}: SAGEConv works")


def _ogb(facts: dict[str, Any]) -> Finding:
    return ok("ogb", f"{facts['version']}: evaluator of ogbn-arxiv is {facts['metric']}")


_JUDGES: dict[str, Callable[[dict[str, Any]], Finding]] = {
    "torch": _torch,
    "horovod": _horovod,
    "mpi4py": _mpi4py,
    "numba": _numba,
    "tensorflow": _tensorflow,
    "torch_geometric": _torch_geometric,
    "ogb": _ogb,
}
