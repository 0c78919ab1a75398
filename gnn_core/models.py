"""The models that `--model` takes, which are checked before a framework is imported.

A model is a name in `MODELS`, or a class in a Python file of the user (`FILE.py:CLASS`).
`horovod_gnn.models` and `tf_mirrored.models` have the builders.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from gnn_core.files import expanded, path_problem, read_regular
from gnn_core.usage import UsageError, shown

DEFAULT = "sage"
# Name -> title. `horovod_gnn.models.register` adds to it, and `--model` then takes the name.
MODELS: dict[str, str] = {DEFAULT: "GraphSAGE", "gcn": "GCN", "gat": "GAT", "gin": "GIN"}
# Those that aggregate in one way only, so that `--aggregator` says nothing to them.
FIXED_AGGREGATION = ("gcn", "gat", "gin")
NORMS = ("none", "layer", "batch")
JUMPS = ("none", "cat", "max")
PREDICTORS = ("mlp", "structure", "content", "ncn")  # of link prediction
LINK_LOSSES = ("bce", "softmax")
BCE_SHARE = 0.1  # of bce that softmax has too, so that scores of different papers compare
_MOST_BYTES = 16 << 20  # of a file with a model


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """What a model is made from: the constructor of a model in a file gets one of these."""

    in_features: int  # width of the input features
    out_features: int  # width of the last layer: classes, or the embedding for link prediction
    hidden: int  # width of the hidden layers
    layers: int
    dropout: float = 0.0  # share of hidden values dropped in training
    input_dropout: float = 0.0  # share of input features dropped in training
    precision: str = "fp32"  # fp32, bf16 or fp64
    native_bf16: bool | None = None  # see `horovod_gnn.arithmetic.Arithmetic`
    seed: int = 0  # of the initial weights
    aggregator: str = "mean"  # mean, sum, max or none
    heads: int = 4  # of attention
    residual: bool = False  # add a layer's input to its output
    norm: str = "none"  # one of NORMS, after each hidden layer
    jumping_knowledge: str = "none"  # one of JUMPS: what joins the outputs of all layers

    @classmethod
    def of(
        cls, config: Any, in_features: int, out_features: int, native_bf16: bool | None = None
    ) -> Self:
        """Those of a run, by its `RunConfig`."""
        own = ("in_features", "out_features", "native_bf16")
        names = [field.name for field in fields(cls) if field.name not in own]
        return cls(
            in_features=in_features,
            out_features=out_features,
            native_bf16=native_bf16,
            **{name: getattr(config, name) for name in names},
        )

    @property
    def jumps(self) -> bool:
        """Whether the outputs of all layers are joined, so that the last layer is a hidden one."""
        return self.jumping_knowledge != "none"

    @property
    def num_hidden(self) -> int:
        """Number of layers whose output is normalised, rectified and dropped out."""
        return self.layers if self.jumps else self.layers - 1

    @property
    def layer_widths(self) -> list[tuple[int, int]]:
        """Input and output width of each layer, the first one first."""
        last = self.hidden if self.jumps else self.out_features
        widths = [self.in_features, *[self.hidden] * (self.layers - 1), last]
        return list(zip(widths, widths[1:], strict=False))

    @property
    def plain(self) -> bool:
        """Whether layers follow each other with nothing but ReLU and dropout between them."""
        return not (self.residual or self.jumps or self.norm != "none")

    @property
    def jump_width(self) -> int:
        """Width of the joined outputs."""
        return self.hidden * (self.layers if self.jumping_knowledge == "cat" else 1)


def num_weights(model: str, settings: ModelSettings) -> int:
    """Numbers that the model trains; of one that is not known, those of a GraphSAGE."""
    if model in COUNTS:
        return COUNTS[model](settings)
    heads, pairs = settings.heads, settings.layer_widths
    averages = [heads if depth == settings.num_hidden else 1 for depth in range(len(pairs))]
    of_layers = {
        "gcn": sum(a * b + b for a, b in pairs),
        "gin": sum(a * b + b + b * b + b for a, b in pairs),
        "gat": sum(n * b * (a + 2) + b for n, (a, b) in zip(averages, pairs, strict=True)),
    }
    found = of_layers.get(model, sum(2 * a * b + b for a, b in pairs))
    if settings.residual:
        found += sum(a * b for a, b in pairs if a != b)
    if settings.norm != "none":
        found += 2 * settings.hidden * settings.num_hidden
    if settings.jumps:
        found += (settings.jump_width + 1) * settings.out_features
    return found


# Model -> what counts its weights, of those that `num_weights` does not know by itself.
COUNTS: dict[str, Callable[[ModelSettings], int]] = {}


def is_fused(model: str, settings: ModelSettings) -> bool:
    """Whether its layers gather rows in the kernels of `horovod_gnn.fused`, without copies."""
    return model == DEFAULT and settings.plain and settings.aggregator != "max"


def title(settings: Mapping[str, Any]) -> str:
    """What a person calls the model of these settings (of a `RunConfig`, by name)."""
    model = settings["model"]
    details = [settings["aggregator"]]
    if model in FIXED_AGGREGATION or is_in_file(model):
        details = [f"{settings['heads']} heads"] if model == "gat" else []
    if settings["residual"]:
        details.append("residual")
    if settings["norm"] != "none":
        details.append(f"{settings['norm']} norm")
    if settings["jumping_knowledge"] != "none":
        details.append(f"jumping knowledge {settings['jumping_knowledge']}")
    name = MODELS.get(model, model)
    return f"{name} ({', '.join(details)})" if details else name


def is_in_file(model: str) -> bool:
    """Whether it names a class in a file and not one of `MODELS`."""
    return model not in MODELS and ("/" in model or ".py" in model)


def file_problem(model: str) -> str | None:
    """Why this cannot name a class in a file, whatever the disk holds; None if it can."""
    file, _, name = model.rpartition(":")
    if not file.endswith(".py") or not name.isidentifier():
        return f"expected FILE.py:CLASS, such as examples/pyg_sage.py:PygSage, got {shown(model)}"
    return path_problem(file)


def file_of(model: str) -> tuple[Path, str]:
    """The file and the class that `FILE.py:CLASS` names."""
    file, _, name = model.rpartition(":")
    return expanded(file, "--model"), name


def short_name(model: str) -> str:
    """The model without the folder of its file, which differs between machines."""
    return Path(model).name if is_in_file(model) else model


def source_of(model: str) -> bytes:
    """What the file of the model holds. Raises UsageError."""
    try:
        return read_regular(file_of(model)[0], _MOST_BYTES)
    except UsageError as error:
        raise UsageError(f"--model: expected the Python file of a model: {error}") from None


def sha256_of(source: bytes) -> str:
    """SHA-256 (hex) of what a file holds."""
    return hashlib.sha256(source).hexdigest()
