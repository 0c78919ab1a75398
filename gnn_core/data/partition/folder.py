"""A partition folder, opened and checked: which part owns a node, and the rows that it stores.

Ids never change: the graph's own folder stays as it is. The one array of length N here is `place`,
from a node's id to its row in part order; part p owns the places offsets[p] .. offsets[p + 1] - 1.

    meta.json                 what was cut, how, how well; checksums of all files
    place.npy                 [N] int32 (int64 from 2**31 nodes)
    part-000/part.json        which partition the part belongs to
    part-000/features.npy     [n_p, F] rows of part 0 in place order, most often read first
    part-000/indptr.npy       with --topology: [n_p + 1] int64
    part-000/indices.npy      with --topology: neighbours as ids of the graph, rows in its order
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gnn_core.compiled import njit
from gnn_core.data.checks import Subject, index_dtype, spans
from gnn_core.data.features import FEATURE_DTYPES
from gnn_core.data.graph import Graph
from gnn_core.data.mapped import map_array
from gnn_core.data.meta import META, require_as_written
from gnn_core.data.store import SMALL_BYTES, file_sha256
from gnn_core.files import is_file, is_folder, read_regular
from gnn_core.usage import UsageError, shown

KIND, FORMAT = "partition", 1
PLACE, PART = "place.npy", "part.json"
MOST_PARTS = 4096
_MOST_META_BYTES = 64 << 20
_AGAIN = "write the partition again (python -m gnn_core.data.partition, --overwrite)"
_KEYS: dict[str, type] = {
    "graph": str,
    "graph_fingerprint": str,
    "num_nodes": int,
    "num_parts": int,
    "num_features": int,
    "offsets": list,
    "method": str,
    "seed": int,
    "topology": bool,
    "checksums": dict,
    "digest": str,
}


@dataclass(frozen=True, eq=False, repr=False)
class Partition:
    """A graph cut into k parts. N nodes, F features."""

    folder: Path
    num_parts: int  # k
    offsets: npt.NDArray[np.int64]  # [k + 1]
    place: npt.NDArray[np.integer]  # [N] int32 or int64, memory-mapped
    meta: dict[str, Any]

    @classmethod
    def open(
        cls,
        folder: str | Path,
        graph: Graph,
        parts: Iterable[int] | None = None,
        verify: bool = False,
    ) -> Partition:
        """Open a partition of `graph`, memory-mapped and checked.

        Args:
            folder: as `python -m gnn_core.data.partition` wrote it.
            graph: the graph that was cut.
            parts: those that have to be in the folder; all of them if None.
            verify: compare checksums also of files larger than 256 MB in total.

        Raises:
            UsageError: it is no partition, or one of another graph; a part is missing, damaged or
                belongs to another partition; `place` is no permutation that fits the offsets.
        """
        folder = Path(folder)
        meta = read_meta(folder)
        if meta["graph_fingerprint"] != graph.fingerprint or meta["num_nodes"] != graph.num_nodes:
            raise UsageError(
                f"{folder}: expected a partition of graph {graph.name} "
                f"({graph.num_nodes} nodes, fingerprint {graph.fingerprint[:12]}), got one of "
                f"{meta['graph']} ({meta['num_nodes']} nodes, {meta['graph_fingerprint'][:12]}); "
                "name the graph that was partitioned, or partition this one"
            )
        partition = cls._mapped(folder, meta)
        wanted = range(partition.num_parts) if parts is None else sorted(set(parts))
        partition._check(wanted, verify)
        return partition

    @classmethod
    def _mapped(cls, folder: Path, meta: dict[str, Any]) -> Partition:
        subject = Subject(meta["graph"], folder, _AGAIN)
        place = map_array(folder / PLACE, subject)
        if place is None:
            raise subject.error("place", "an array", "no such file")
        num_nodes = meta["num_nodes"]
        if place.shape != (num_nodes,) or place.dtype != index_dtype(num_nodes):
            wanted = f"{index_dtype(num_nodes)} of shape [{num_nodes}]"
            raise subject.error("place", wanted, f"{place.dtype} of shape {list(place.shape)}")
        offsets = np.array(meta["offsets"], np.int64)
        return cls(folder, meta["num_parts"], offsets, place, meta)

    def __repr__(self) -> str:
        """Counts, not arrays."""
        return f"Partition({self.meta['graph']}: {self.num_parts} parts, {self.folder})"

    @property
    def num_features(self) -> int:
        """F, 0 without features."""
        return int(self.meta["num_features"])

    @property
    def feature_dtype(self) -> str | None:
        """`float32`, `float16`, `bfloat16` (bits in a uint16 array), or None without features."""
        name: str | None = self.meta["feature_dtype"]
        return name

    @property
    def has_topology(self) -> bool:
        """Whether the parts hold adjacency rows too."""
        return bool(self.meta["topology"])

    def owners(self, ids: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """The part of each node: int64 `[n]` for ids `[n]`."""
        owners: npt.NDArray[np.int64] = np.searchsorted(self.offsets, self.place[ids], "right") - 1
        return owners

    def rows(self, ids: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """The row of each node within its part: int64 `[n]` for ids `[n]`."""
        places = self.place[ids].astype(np.int64)
        within: npt.NDArray[np.int64] = (
            places - self.offsets[np.searchsorted(self.offsets, places, "right") - 1]
        )
        return within

    def part_nodes(self, part: int) -> int:
        """How many nodes a part owns."""
        return int(self.offsets[part + 1] - self.offsets[part])

    def part_features(self, part: int) -> npt.NDArray:
        """The feature rows of a part, `[n_p, F]` of the graph's dtype, memory-mapped. UsageError.

        The graph must have features.
        """
        array = self._array(part, "features")
        shape = (self.part_nodes(part), self.num_features)
        dtype = FEATURE_DTYPES[self.feature_dtype or "float32"]
        if array.shape != shape or array.dtype != dtype:
            wanted = f"{dtype} of shape {list(shape)}"
            got = f"{array.dtype} of shape {list(array.shape)}"
            raise self._subject(part).error("features", wanted, got)
        return array

    def part_topology(self, part: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.integer]]:
        """The adjacency rows of a part: indptr `[n_p + 1]`, indices (ids of the graph). UsageError.

        The partition must have been written with its topology.
        """
        indptr, indices = self._array(part, "indptr"), self._array(part, "indices")
        subject, num_nodes = self._subject(part), self.meta["num_nodes"]
        if indptr.shape != (self.part_nodes(part) + 1,) or indptr.dtype != np.int64:
            got = f"{indptr.dtype} of shape {list(indptr.shape)}"
            raise subject.error("indptr", f"int64 of shape [{self.part_nodes(part) + 1}]", got)
        if indices.ndim != 1 or indices.dtype != index_dtype(num_nodes):
            got = f"{indices.dtype} of shape {list(indices.shape)}"
            raise subject.error("indices", f"{index_dtype(num_nodes)} of one dimension", got)
        if indptr[0] != 0 or indptr[-1] != len(indices) or (np.diff(indptr) < 0).any():
            raise subject.error("indptr", f"offsets that rise from 0 to {len(indices)}", "others")
        for span in spans(len(indices), indices.itemsize, indices.nbytes < SMALL_BYTES):
            piece = indices[span]
            if len(piece) and (piece.min() < 0 or piece.max() >= num_nodes):
                got = f"{piece.min()} .. {piece.max()}"
                raise subject.error("indices", f"node ids from 0 to {num_nodes - 1}", got)
        return indptr, indices

    def part_bytes(self, part: int) -> dict[str, int]:
        """Bytes of the arrays of a part, by name; a part that is not in the folder has none."""
        folder = self.folder / part_name(part)
        return {file.stem: file.stat().st_size for file in sorted(folder.glob("*.npy"))}

    def _array(self, part: int, name: str) -> npt.NDArray:
        subject = self._subject(part)
        array = map_array(self.folder / part_name(part) / f"{name}.npy", subject)
        if array is None:
            raise subject.error(name, "an array", "no such file")
        return array

    def _subject(self, part: int) -> Subject:
        return Subject(self.meta["graph"], self.folder / part_name(part), _AGAIN)

    def _check(self, parts: Iterable[int], verify: bool) -> None:
        if not is_permutation(self.place):
            expected = f"each row from 0 to {len(self.place) - 1} once"
            raise Subject("", self.folder, _AGAIN).error("place", expected, "others")
        files = [self.folder / PLACE]
        for part in parts:
            require_member(self.folder, part, self.meta["digest"])
            if self.num_features:
                self.part_features(part)
            if self.has_topology:
                self.part_topology(part)
            files += sorted((self.folder / part_name(part)).glob("*.npy"))
        require_as_written(self.folder, self.meta)
        if verify or sum(file.stat().st_size for file in files) < SMALL_BYTES:
            for file in files:
                self._check_sum(file)

    def _check_sum(self, file: Path) -> None:
        name = file.relative_to(self.folder).as_posix()
        expected = self.meta["checksums"].get(name)
        if expected is not None and file_sha256(file) != expected:
            raise UsageError(
                f"{file}: expected the bytes it was written with (sha256 {str(expected)[:16]}..), "
                f"got others; {_AGAIN}"
            )


def part_name(part: int) -> str:
    """The folder of a part: `part-000`."""
    return f"part-{part:03d}"


def parts_there(folder: Path) -> list[int]:
    """The parts of a partition whose folders are there, which a host's own are. UsageError."""
    num_parts = read_meta(folder)["num_parts"]
    return [part for part in range(num_parts) if is_folder(folder / part_name(part))]


def digest_of(meta: dict[str, Any]) -> str:
    """64 hex digits that tell one partition from another: of the graph, the cut and `place`."""
    keys = ("graph_fingerprint", "num_parts", "method", "seed", "offsets", "topology")
    told = [meta[key] for key in keys] + [meta["checksums"][PLACE]]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def require_member(folder: Path, part: int, digest: str) -> None:
    """Raise UsageError unless the part is in the folder and belongs to that partition."""
    place = folder / part_name(part)
    if not is_file(place / PART):
        raise UsageError(
            f"{place}: expected part {part} of the partition, got none there; copy the folder of "
            "that part from where it was written"
        )
    try:
        told = json.loads(read_regular(place / PART, 4096))
        found = (told["partition"], told["part"])
    except (ValueError, LookupError, TypeError, RecursionError):
        found = ("", -1)
    if found != (digest, part):
        raise UsageError(
            f"{place}: expected part {part} of partition {digest[:12]}, got part {found[1]} of "
            f"{str(found[0])[:12] or 'none'}: parts of different runs do not fit together; "
            "copy all parts and place.npy from one partition"
        )


def read_meta(folder: Path) -> dict[str, Any]:
    """The meta.json of a partition folder, its entries checked. Raises UsageError."""
    path = folder / META
    if not is_folder(folder) or not is_file(path):
        raise UsageError(
            f"{folder}: expected the folder of a partition, got no {META} there; make one with "
            "python -m gnn_core.data.partition NAME --parts K"
        )
    try:
        meta: dict[str, Any] = json.loads(read_regular(path, _MOST_META_BYTES))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: expected JSON, got {error}; {_AGAIN}") from None
    told = (meta.get("kind"), meta.get("format")) if isinstance(meta, dict) else ("", 0)
    if told != (KIND, FORMAT):
        got = f"kind {shown(told[0])}, format {shown(told[1])}"
        raise UsageError(f"{path}: expected a partition of format {FORMAT}, got {got}; {_AGAIN}")
    for key, wanted in _KEYS.items():
        if type(meta.get(key)) is not wanted:
            got = shown(meta.get(key))
            raise UsageError(
                f"{path}: expected {key} of type {wanted.__name__}, got {got}; {_AGAIN}"
            )
    if problem := _wrong_entry(meta):
        raise UsageError(f"{path}: expected {problem}; {_AGAIN}")
    return meta


def _wrong_entry(meta: dict[str, Any]) -> str | None:
    num_nodes, num_parts, offsets = meta["num_nodes"], meta["num_parts"], meta["offsets"]
    if not 1 <= num_parts <= MOST_PARTS:
        return f"1 to {MOST_PARTS} parts, got {num_parts}"
    if meta["num_features"] < 0 or meta.get("feature_dtype") not in (None, *FEATURE_DTYPES):
        return f"features of {', '.join(FEATURE_DTYPES)}, got {shown(meta.get('feature_dtype'))}"
    whole = all(type(offset) is int for offset in offsets)
    rises = whole and all(low <= high for low, high in zip(offsets, offsets[1:], strict=False))
    if not rises or len(offsets) != num_parts + 1 or offsets[0] != 0 or offsets[-1] != num_nodes:
        return f"{num_parts + 1} offsets that rise from 0 to {num_nodes}, got {shown(offsets)}"
    return None


@njit(cache=True, nogil=True)
def spans_of(places, offsets):  # type: ignore[no-untyped-def]
    """searchsorted(offsets, places, "right") - 1, in a tenth of its time: int64 `[n]`."""
    spans = np.empty(len(places), np.int64)
    for i in range(len(places)):
        low, high = 0, len(offsets) - 1
        while high - low > 1:
            middle = (low + high) >> 1
            if offsets[middle] <= places[i]:
                low = middle
            else:
                high = middle
        spans[i] = low
    return spans


@njit(cache=True, nogil=True)
def is_permutation(places):  # type: ignore[no-untyped-def]
    """Whether `places` [N] has each of 0 .. N - 1 once. Takes N bits."""
    seen = np.zeros((len(places) >> 3) + 1, np.uint8)
    for at in range(len(places)):
        place = np.int64(places[at])
        if place < 0 or place >= len(places):
            return False
        bit = np.uint8(1 << (place & 7))
        if seen[place >> 3] & bit:
            return False
        seen[place >> 3] |= bit
    return True
