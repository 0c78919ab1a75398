"""meta.json of a graph folder: what it says, and whether it still says what was written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from gnn_core.data.checks import ARRAY_NAMES
from gnn_core.data.features import FEATURE_DTYPES, SPARSE_PARTS, feature_dtype_name
from gnn_core.usage import UsageError, printable

SCHEMA = 1
META = "meta.json"
# What the nodes of an imported graph were called: int64 [N], or text as offsets [N + 1] and UTF-8.
ID_FILES = ("ids", "ids-offsets", "ids-bytes")
MISSING_ALLOWED = "missing_classes_allowed"  # in provenance, of a split that lacks classes
_MOST_BYTES = 64 << 20
_LIMITS = {
    "num_nodes": 1 << 38,
    "num_edges": 1 << 48,
    "num_features": 1 << 22,
    "num_classes": 1 << 31,
}
_SUM = "meta_sha256"  # of the other entries; a folder made by hand need not have it


def describe(
    name: str,
    arrays: dict[str, Any],
    num_classes: int | None,
    checksums: dict[str, str],
    provenance: dict[str, Any],
) -> dict[str, Any]:
    """The contents of meta.json. Without `num_classes` it is the largest label plus one."""
    indptr, indices, features = arrays["indptr"], arrays["indices"], arrays.get("features")
    labels = arrays.get("labels")
    if num_classes is None:
        num_classes = int(labels.max()) + 1 if labels is not None and labels.size else 0
    return {
        "schema": SCHEMA,
        "name": name,
        "num_nodes": len(indptr) - 1 if indptr is not None else 0,
        "num_edges": len(indices) if indices is not None else 0,
        "num_features": 0 if features is None or features.ndim < 2 else features.shape[1],
        "num_classes": int(num_classes),
        "feature_dtype": feature_dtype_name(features),
        "checksums": dict(sorted(checksums.items())),
        "provenance": provenance,
    }


def read_meta(folder: Path) -> dict[str, Any]:
    """meta.json of a graph folder, checked. Raises UsageError."""
    path = folder / META
    if not folder.is_dir():
        raise UsageError(f"{folder}: expected a graph folder, got nothing there; check the path")
    if not path.is_file():
        raise UsageError(
            f"{path}: expected the description of a graph, got no such file; "
            "is this folder a graph written by gnn_core.data?"
        )
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES:,} bytes")
        meta = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: expected JSON, got {error}; prepare the graph again") from None
    if not isinstance(meta, dict) or meta.get("schema") != SCHEMA:
        got = meta.get("schema", "none") if isinstance(meta, dict) else type(meta).__name__
        raise UsageError(f"{path}: expected schema {SCHEMA}, got {got}; prepare the graph again")
    counts = ("num_nodes", "num_edges", "num_features", "num_classes")
    kinds = {**dict.fromkeys(counts, int), "name": str, "checksums": dict, "provenance": dict}
    for key, kind in kinds.items():
        value = meta.get(key, {} if key == "provenance" else None)
        if not isinstance(value, kind) or isinstance(value, bool):
            what = f"{path}: expected {key} of type {kind.__name__}"
            raise UsageError(f"{what}, got {str(value)[:60]!r}; prepare the graph again")
    known = {f"{name}.npy" for name in (*ARRAY_NAMES, *SPARSE_PARTS, *ID_FILES)}
    strange = next((str(file) for file in meta["checksums"] if file not in known), None)
    if printable(meta["name"]) != meta["name"]:
        raise UsageError(f"{path}: expected a name of printable characters, got {meta['name']!r}")
    if got := f"a file {strange}" if strange else _wrong_entry(meta):
        raise UsageError(f"{path}: expected the description of a graph, got {got[:60]}")
    return meta


def _wrong_entry(meta: dict[str, Any]) -> str | None:
    for key, limit in _LIMITS.items():
        if not 0 <= meta[key] < limit:
            return f"{key} {meta[key]}"
    dtype = meta.get("feature_dtype")
    known = [*FEATURE_DTYPES] if "features.npy" in meta["checksums"] else [None, *FEATURE_DTYPES]
    return None if dtype in known else f"feature_dtype {dtype}"


def meta_text(meta: dict[str, Any]) -> str:
    """The text of meta.json, with a checksum of its entries among them."""
    return json.dumps({**meta, _SUM: _sha256(meta)}, indent=2, sort_keys=True) + "\n"


def require_as_written(folder: Path, meta: dict[str, Any]) -> None:
    """Raise UsageError where entries of meta.json are not those it was written with."""
    if _SUM in meta and meta[_SUM] != _sha256(meta):
        raise UsageError(
            f"{folder / META}: expected the entries it was written with, got others; write it "
            f"again (a prepared data set: delete the folder and rerun), or remove {_SUM} if the "
            "change is meant"
        )


def _sha256(meta: dict[str, Any]) -> str:
    others = {key: value for key, value in meta.items() if key != _SUM}
    return hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest()
