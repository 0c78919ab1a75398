"""A model of the user: a class in a Python file, which is executed (docs/models.md).

What can be wrong with it is found on a made-up graph of three nodes, before data are read.
"""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable
from functools import cache, partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from gnn_core import models, seeding
from gnn_core.data.batch import Block
from gnn_core.data.graph import Graph
from gnn_core.models import ModelSettings
from gnn_core.usage import UsageError, did_you_mean, one_line
from horovod_gnn.node_model import NodeModel

_MOST_SHOWN = 300  # characters of an error of the user's code
_T = TypeVar("_T")


def build_own(model: str, sha256: str | None, settings: ModelSettings) -> NodeModel:
    """An instance of the class that `FILE.py:CLASS` names, with its output as wide as asked for.

    Its constructor draws from torch's random numbers as a function of the seed alone.

    Args:
        model: the file and the class.
        sha256: what the file must have; None takes any.
        settings: what the constructor gets.

    Raises:
        UsageError: see above, or an error of the user's code.
    """
    kind = _class_of(model, sha256)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeding.key(settings.seed, "own model") >> 1)
        made: NodeModel = _run(model, "its constructor", lambda: kind(settings))
    for name in ("widths", "arithmetic"):
        if not hasattr(made, name):
            raise _error(model, f"expected an attribute `{name}` (see NodeModel), got none")
    widths = tuple(made.widths)
    if len(widths) != settings.layers or widths[-1] != settings.out_features:
        raise _error(
            model,
            f"expected `widths` of {settings.layers} layers, the last one {settings.out_features} "
            f"(--layers, and the classes or --hidden), got {widths}",
        )
    _check_tensors(model, made)
    return made


def check_own(model: str, sha256: str | None, settings: ModelSettings) -> None:
    """Refuse what cannot be trained, after a forward and a backward pass on a made-up graph.

    Raises:
        UsageError: as `build_own`, and for outputs of the wrong shape or dtype, and for layers one
            by one that give something else than `forward`.
    """
    made = build_own(model, sha256, settings)
    graph = _made_up_graph(settings)
    made.read_graph(graph)
    nodes = np.arange(graph.num_nodes)
    block = Block(graph.indptr.astype(np.int32), graph.indices.astype(np.int32), len(nodes))
    features = torch.from_numpy(graph.features)

    def expect(what: str, out: Any, width: int) -> Tensor:
        wanted = ([len(nodes), width], made.arithmetic.accumulator)
        found = (list(out.shape), out.dtype) if isinstance(out, Tensor) else type(out).__name__
        if found != wanted:
            raise _error(model, f"expected {what} to give {wanted}, got {found}")
        assert isinstance(out, Tensor)
        return out

    forward = partial(made, features, nodes, [block] * settings.layers, 0)

    out = expect("forward", _run(model, "forward", forward), made.widths[-1])
    if not out.requires_grad:
        raise _error(model, "expected logits with a gradient, got none: no parameter was used")
    _run(model, "the backward pass", lambda: out.sum().backward())
    made.eval()
    whole = _run(model, "forward", forward)
    states: Tensor = features
    for depth, width in enumerate(made.widths):
        infer = partial(made.infer_layer, depth, states, nodes, block)
        found = _run(model, "infer_layer", infer)
        states = expect(f"infer_layer at depth {depth}", found, width).detach()
    if not torch.allclose(whole, states, rtol=0.05, atol=0.05):
        raise _error(model, "expected infer_layer, layer by layer, to give what forward gives")


def count_weights(model: str, sha256: str | None, settings: ModelSettings) -> int:
    """Numbers that the model trains, counted without memory for them."""
    with torch.device("meta"):
        made = _class_of(model, sha256)(settings)
    return sum(parameter.numel() for parameter in made.parameters())


def _class_of(model: str, sha256: str | None) -> type[NodeModel]:
    """The class in the file, which is executed if its content is new."""
    source = models.source_of(model)
    found = models.sha256_of(source)
    path, _ = models.file_of(model)
    if sha256 not in (None, found):
        raise UsageError(
            f"--model-sha256: expected {path} to have {sha256}, got {found}: the file has changed"
        )
    kind = _executed(model, source)
    models.COUNTS[model] = lambda settings: count_weights(model, sha256, settings)
    return kind


@cache
def _executed(model: str, source: bytes) -> type[NodeModel]:
    """The class that the file defines when it is executed, once for each content."""
    path, name = models.file_of(model)
    module = types.ModuleType(f"ringsage_own_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses and pickles look for it
    _run(model, "the file", lambda: exec(compile(source, str(path), "exec"), vars(module)))
    kind = getattr(module, name, None)
    if kind is None:
        classes = [n for n, value in vars(module).items() if inspect.isclass(value)]
        raise _error(model, f"{path} has no class {name}{did_you_mean(name, classes)}")
    if not (inspect.isclass(kind) and issubclass(kind, NodeModel)):
        raise _error(
            model,
            f"expected {name} to be a class derived from LayeredModel or NodeModel, got "
            f"{kind if inspect.isclass(kind) else type(kind).__name__}",
        )
    if missing := sorted(getattr(kind, "__abstractmethods__", ())):
        raise _error(model, f"expected {name} to define {', '.join(missing)}, which it does not")
    try:
        inspect.signature(kind).bind(None)
    except (TypeError, ValueError):
        raise _error(
            model,
            f"expected a constructor of one argument, ModelSettings, got "
            f"{name}{inspect.signature(kind)}",
        ) from None
    return kind


def _check_tensors(model: str, made: NodeModel) -> None:
    parameters = dict(made.named_parameters())
    if not parameters:
        raise _error(model, "expected parameters to train, got none")
    wanted = made.arithmetic.accumulator
    for name, parameter in parameters.items():
        if parameter.dtype != wanted:
            raise _error(
                model,
                f"expected parameters of {wanted} (self.to(self.arithmetic.accumulator)), "
                f"got {name} of {parameter.dtype}",
            )


def _made_up_graph(settings: ModelSettings) -> Graph:
    """Three nodes in a ring, each with itself as a neighbour too."""
    features = np.linspace(-1, 1, 3 * settings.in_features, dtype=np.float32)
    labels, splits = np.arange(3) % settings.out_features, np.ones(3, dtype=np.int64)
    return Graph.from_arrays(
        "made up",
        np.array([0, 2, 4, 6]),
        np.array([0, 1, 1, 2, 0, 2]),
        features.reshape(3, settings.in_features),
        labels,
        splits,
        num_classes=settings.out_features,
    )


def _run(model: str, what: str, call: Callable[[], _T]) -> _T:
    """What the user's code gives; its errors, in one line."""
    try:
        return call()
    except UsageError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever the user's code raises
        text = one_line(f"{type(error).__name__}: {error}")[:_MOST_SHOWN]
        raise _error(model, f"{what} failed{_line_of(model, error)}: {text}") from error


def _line_of(model: str, error: Exception) -> str:
    """Where in the user's file it happened, as ` in line 12`."""
    file = str(models.file_of(model)[0])
    trace, line = error.__traceback__, ""
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = f" in line {trace.tb_lineno}"
        trace = trace.tb_next
    return line


def _error(model: str, text: str) -> UsageError:
    return UsageError(f"--model {models.short_name(model)}: {text}")
