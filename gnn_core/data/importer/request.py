"""What is to be imported: the settings of `build.import_graph`, checked where they can be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from gnn_core.data.importer.tables import TextOptions
from gnn_core.usage import UsageError, read_number, read_whole, shown

MADE_FEATURES = ("identity", "degree")
"""What `features` may be instead of files: a column for each node, or the degree as one-hot."""
ID_TYPES = ("auto", "int", "text")
LAYOUTS = ("auto", "rows", "triples", "ordered")
_RANDOM, _PLANETOID, _YEAR = "random", "planetoid", "year"


@dataclass(frozen=True)
class Request:
    """Files and how to read them. A column is named, or given by its position from 0."""

    edges: tuple[Path, ...]
    nodes: tuple[Path, ...] = ()
    features: tuple[str, ...] = ()  # paths, or one of MADE_FEATURES
    labels: Path | None = None  # .npy [N]
    years: Path | None = None  # .npy [N]
    split: str | None = None  # random:..., planetoid, year:..., or a file
    split_seed: int = 0
    directed: bool = False
    source_column: str | None = None
    target_column: str | None = None
    id_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    year_column: str | None = None
    feature_columns: tuple[str, ...] = ()  # names, or patterns such as x_*
    feature_layout: str = "auto"
    id_type: str = "auto"
    allow_unlisted: bool = False
    allow_missing_classes: bool = False
    text: TextOptions = TextOptions()


@dataclass(frozen=True)
class SplitRule:
    """How nodes with a label are split: at random by shares, per class, or by year."""

    how: str
    shares: tuple[float, float, float] = (0.0, 0.0, 0.0)
    last_years: tuple[int, int] = (0, 0)  # of training and of validation

    def __str__(self) -> str:
        if self.how == _RANDOM:
            return f"{_RANDOM}:{','.join(f'{share:g}' for share in self.shares)}"
        return (
            self.how
            if self.how == _PLANETOID
            else f"{_YEAR}:{self.last_years[0]},{self.last_years[1]}"
        )


DEFAULT_SPLIT = SplitRule(_RANDOM, (0.6, 0.2, 0.2))


def split_rule(text: str) -> SplitRule | None:
    """The rule that `--split` names; None if it names a file. Raises UsageError."""
    how, _, rest = text.partition(":")
    if text == _PLANETOID:
        return SplitRule(_PLANETOID)
    try:
        if how == _RANDOM:
            shares = tuple(map(read_number, rest.split(","))) if rest else DEFAULT_SPLIT.shares
            total = sum(shares)
            if len(shares) == 3 and min(shares) >= 0 < shares[0] and total <= 1 + 1e-9:
                return SplitRule(_RANDOM, (shares[0], shares[1], shares[2]))
            raise ValueError
        if how == _YEAR:
            years = tuple(map(read_whole, rest.split(",")))
            if len(years) == 2 and years[0] < years[1] and max(map(math.fabs, years)) < 10_000:
                return SplitRule(_YEAR, last_years=(years[0], years[1]))
            raise ValueError
    except ValueError:
        example = "random:0.6,0.2,0.2 (train, validation, test; at most 1 in all)"
        if how == _YEAR:
            example = "year:2017,2018 (last year of training, last one of validation)"
        raise UsageError(f"--split: expected {example}, got {shown(text)}") from None
    return None
