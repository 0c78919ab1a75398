"""The spec string of a synthetic graph: `synthetic`, a preset, and `key=value` settings.

synthetic:papers=1e6,citations_per_paper=10,num_features=128,num_topics=16,homophily=0.8,seed=1
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from gnn_core.data.features import FEATURE_DTYPES
from gnn_core.usage import UsageError, did_you_mean


@dataclass(frozen=True, repr=False)
class SyntheticSpec:
    """What to generate; each field is a key of the spec string. Raises UsageError out of range."""

    papers: int = 20_000
    citations_per_paper: float = 8.0  # mean, before repeats are dropped
    num_features: int = 128  # size of the vocabulary
    num_topics: int = 16
    homophily: float = 0.65  # share of citations that stay within the topic
    words: int = 10  # words drawn per paper
    clarity: float = 0.24  # chance that a word comes from the topic, not from the whole language
    feature_dtype: str = "float32"
    labelled: float = 1.0  # share of papers that belong to a split
    seed: int = 1
    closure: float = 0.0  # chance that a citation is one that another cited paper makes

    def __post_init__(self) -> None:
        """Judge each value."""
        for key, (low, high) in _RANGES.items():
            value = getattr(self, key)
            if not low <= value <= high:
                raise UsageError(
                    f"synthetic graph: expected {key} from {low:g} to {high:g}, got {value}"
                )
        if self.feature_dtype not in FEATURE_DTYPES:
            raise UsageError(
                f"synthetic graph: expected feature_dtype {_alternatives(FEATURE_DTYPES)}, "
                f"got {self.feature_dtype!r}{did_you_mean(self.feature_dtype, FEATURE_DTYPES)}"
            )

    def parameters(self) -> dict[str, Any]:
        """All fields by name; without `closure` where it is 0, which older graphs do not name."""
        found = asdict(self)
        if not self.closure:
            del found["closure"]
        return found

    def __repr__(self) -> str:
        """The parameters; a prepared graph is found by them."""
        return f"SyntheticSpec({', '.join(f'{k}={v!r}' for k, v in self.parameters().items())})"

    @classmethod
    def parse(cls, text: str) -> SyntheticSpec:
        """The spec of `synthetic` or a preset, alone or with `:key=value,...`. UsageError."""
        name, _, settings = text.partition(":")
        if name not in PRESETS:
            near = did_you_mean(name, PRESETS)
            raise UsageError(f"expected a graph {_alternatives(PRESETS)}, got {name!r}{near}")
        changes: dict[str, Any] = {}
        for pair in filter(None, (part.strip() for part in settings.split(","))):
            key, equals, value = (part.strip() for part in pair.partition("="))
            if key not in _DEFAULTS:
                near = did_you_mean(key, _DEFAULTS) or f"; it knows {', '.join(_DEFAULTS)}"
                raise UsageError(f"{name}: unknown setting {key!r}{near}")
            if not equals or not value:
                raise UsageError(f"{name}: expected {key}=VALUE, got {pair!r}")
            if key in changes:
                raise UsageError(f"{name}: expected {key} once, got it twice; remove one")
            changes[key] = _value(name, key, value)
        return replace(PRESETS[name], **changes)

    def canonical(self) -> str:
        """The shortest spec string that means this spec: a preset's name if it is one."""
        for name, preset in PRESETS.items():
            if self == preset:
                return name
        changed = [
            f"{key}={value:.12g}" if isinstance(value, float) else f"{key}={value}"
            for key, value in asdict(self).items()
            if value != _DEFAULTS[key]
        ]
        return "synthetic" + (":" + ",".join(changed) if changed else "")


_RANGES: dict[str, tuple[float, float]] = {
    "papers": (100, 2e9),
    "citations_per_paper": (1, 1000),
    "num_features": (8, 100_000),
    "num_topics": (2, 1000),
    "homophily": (0, 1),
    "words": (1, 1000),
    "clarity": (0, 1),
    "labelled": (1e-6, 1),
    "closure": (0, 1),
    "seed": (0, 2**53),
}
_DEFAULTS: dict[str, Any] = {item.name: item.default for item in fields(SyntheticSpec)}
PRESETS = {
    "synthetic": SyntheticSpec(),
    "synthetic-100k": SyntheticSpec(papers=100_000, citations_per_paper=10),
    # The size of ogbn-arxiv: 169 343 papers, about 2.3 million message-passing edges, 40 topics.
    "synthetic-arxiv": SyntheticSpec(papers=169_343, citations_per_paper=7.1, num_topics=40),
}


def _alternatives(names: Any) -> str:
    return " or ".join(names)


def _value(name: str, key: str, text: str) -> Any:
    """`text` as the type of that key. Sizes may be written 1e6 or 1_000_000."""
    kind = type(_DEFAULTS[key])
    if kind is str:
        return text
    try:
        number = float(text)
        whole = int(text) if text.replace("_", "").isdecimal() else int(number)
    except (ValueError, OverflowError):
        raise UsageError(f"{name}: expected a number for {key}, got {text!r}") from None
    if kind is int and whole != number:
        raise UsageError(f"{name}: expected a whole number for {key}, got {text!r}")
    return whole if kind is int else number
