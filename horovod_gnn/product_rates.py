"""Whether bfloat16 operands are multiplied as bfloat16 or as float32: whichever is faster here.

A CPU with AMX multiplies bfloat16 several times as fast as float32, one with AVX-512 BF16 but no
AMX often slower, any other some thirty times slower. Its flags do not tell which it is, so both are
measured, once per machine, and kept in the cache. `TorchLearner` asks with `--precision bf16`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from gnn_core.measure import machine
from gnn_core.usage import UsageError
from gnn_core.whole_file import write_whole
from horovod_gnn.arithmetic import Arithmetic

_ROWS, _INNER, _OUT = 512, 256, 128  # a chunk of the default model's hidden layer
_SECONDS = 0.025  # to measure each way for; at least two rounds, the first of which warms up
_GAIN = 1.1  # as bfloat16 a product rounds its result too: that has to be worth something


@dataclass(frozen=True)
class ProductRates:
    """Operations per second of a layer's products of bfloat16 operands, by how it multiplies them.

    Conversions are part of it: they are what eats a small gain.
    """

    fp32: float
    bf16: float

    def __post_init__(self) -> None:
        """Raise ValueError for what cannot be a rate."""
        for rate in (self.fp32, self.bf16):
            if not (isinstance(rate, float) and math.isfinite(rate) and rate > 0):
                raise ValueError(f"expected operations per second, got {rate!r}")

    @property
    def native_bf16(self) -> bool:
        """Whether bfloat16 operands are to be multiplied as bfloat16."""
        return self.bf16 > _GAIN * self.fp32

    def facts(self) -> dict[str, Any]:
        """The choice and its reason, as a record keeps them."""
        return {
            "multiplied_as": "bf16" if self.native_bf16 else "fp32",
            "fp32_gflops": round(self.fp32 / 1e9, 1),
            "bf16_gflops": round(self.bf16 / 1e9, 1),
        }

    def note(self) -> str:
        """The same in words."""
        facts = self.facts()
        chosen, other = ("bf16", "fp32") if self.native_bf16 else ("fp32", "bf16")
        return (
            f"bf16 operands are multiplied as {chosen}: measured {facts[f'{chosen}_gflops']} "
            f"GFLOP/s, as {other} {facts[f'{other}_gflops']}"
            + ("" if self.native_bf16 else "; no faster than --precision fp32")
        )


def slowest(rates: Sequence[ProductRates]) -> ProductRates:
    """The rates of ranks that wait for each other after every step."""
    return ProductRates(min(one.fp32 for one in rates), min(one.bf16 for one in rates))


def product_rates(cache: Path) -> ProductRates:
    """The rates of this machine with torch's present number of threads.

    Measured, which takes about 0.1 s, unless `cache` (the folder of `find_cache`) has them. They
    are kept there if it can be written.
    """
    file = rates_file(cache)
    try:
        return ProductRates(**json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError):  # not there, or damaged
        pass
    rates = measure()
    with contextlib.suppress(UsageError):
        write_whole(file, json.dumps(asdict(rates)))
    return rates


def rates_file(cache: Path) -> Path:
    """Where rates are kept; another CPU, torch, number of threads or limit of oneDNN: elsewhere."""
    limits = [os.environ.get(name) for name in ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")]
    key = [*machine.processor(), torch.__version__, torch.get_num_threads(), *limits]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]
    return cache / "machine" / f"product-rates-{digest}.json"


def measure() -> ProductRates:
    """Time both ways."""
    fp32, bf16 = (_rate(Arithmetic("bf16", native_bf16=native)) for native in (False, True))
    return ProductRates(fp32, bf16)


def _rate(arithmetic: Arithmetic) -> float:
    """Operations per second in the best of several rounds, as if nothing else ran on the cores."""
    rounds: list[float] = []
    end = time.process_time() + _SECONDS
    while len(rounds) < 2 or time.process_time() < end:
        rounds.append(_seconds(arithmetic))
    operations = 3 * 2 * _ROWS * _INNER * _OUT
    return operations * torch.get_num_threads() / min(rounds)


def _seconds(arithmetic: Arithmetic) -> float:
    """Processor seconds of a layer's products, forward and backward, as `fused` makes them.

    Not elapsed ones: what is kept must not depend on how busy the machine was.
    """
    values, grad = torch.rand(_ROWS, _INNER), torch.rand(_ROWS, _OUT)
    weight, grad_weight = arithmetic.operand(torch.rand(_OUT, _INNER)), torch.zeros(_OUT, _INNER)
    x, h = arithmetic.empty(_ROWS, _INNER), arithmetic.empty(_ROWS, _OUT)
    start = time.process_time()
    with arithmetic.written(x) as out:
        out.copy_(values)
    torch.mm(x, weight.t(), out=h)
    with arithmetic.updated(h) as out:
        out.relu_()
    operand = arithmetic.operand(grad)
    arithmetic.add_product(grad_weight, operand.t(), x)
    arithmetic.product(operand, weight)
    return time.process_time() - start
