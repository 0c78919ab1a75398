"""Reader of the LINQS Cora files (Sen et al., AI Magazine 2008), which keep who cites whom.

`cora.content`: paper id, 1433 words as 0 or 1, class. `cora.cites`: id of the cited paper, id of
the citing one. The files name no split: 20 papers per class train, 500 validate and 1000 test,
drawn once from a fixed key.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gnn_core import seeding
from gnn_core.data.csr import edges_of, write_csr
from gnn_core.data.planetoid import normalised
from gnn_core.data.progress import Progress
from gnn_core.data.store import GraphWriter
from gnn_core.usage import UsageError

READER = "LINQS reader 2"  # change it whenever the same files give other arrays
FILES = ("cora.content", "cora.cites")
URL = "https://linqs-data.soe.ucsc.edu/public/lbc/cora.tgz"
MOST_BYTES = 1 << 24  # of the archive
_MOST_UNPACKED = 1 << 26  # eight times what is published
SHA256 = {
    "cora.content": "b8ebed0fd45e53995abafd1b70cf6a9fcc8f86abc5826d69b97fe6ca46e9c8ee",
    "cora.cites": "ec1a372391b7f0f60a6aff0084e8abd8f19f0faa7e1f2441a41c492042d5945e",
}
_TRAIN_PER_CLASS, _NUM_VALID, _NUM_TEST = 20, 500, 1000


def convert(
    name: str, raw: Path, folder: Path, provenance: dict[str, Any], progress: Progress
) -> None:
    """Write the graph of the files in `raw` to `folder`; classes are numbered by the alphabet."""
    progress("reading", 0, 1)
    ids, words, classes = _read_content(raw / FILES[0])
    citations = _read_cites(raw / FILES[1], ids)
    names, labels = np.unique(classes, return_inverse=True)
    with GraphWriter(folder, name) as writer:
        writer.put("features", normalised(words))
        writer.put("labels", labels.astype(np.int32))
        writer.put("splits", draw_splits(labels))
        writer.put("citations", citations)
        write_csr(writer, edges_of(citations), len(ids), progress=progress)
        facts = {"features": "rows divided by their sum", "class_names": names.tolist()}
        writer.finish(len(names), {**provenance, **facts})


def files_in(archive: bytes) -> dict[str, bytes]:
    """Name -> content of both files in cora.tgz. ValueError if they are not those published."""
    found = {}
    try:
        with gzip.open(io.BytesIO(archive)) as file:
            unpacked = file.read(_MOST_UNPACKED + 1)
        if len(unpacked) > _MOST_UNPACKED:
            raise OSError(f"more than {_MOST_UNPACKED:,} bytes")
        with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as tar:
            for name in FILES:
                member = tar.getmember(f"cora/{name}")
                stream = tar.extractfile(member)
                found[name] = stream.read(MOST_BYTES) if stream else b""
    except (tarfile.TarError, KeyError, OSError, EOFError, zlib.error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"expected an archive with {' and '.join(FILES)}, got {reason}") from None
    for name, content in found.items():
        got = hashlib.sha256(content).hexdigest()
        if got != SHA256[name]:
            raise ValueError(f"expected {name} of sha256 {SHA256[name][:16]}.., got {got[:16]}..")
    return found


def draw_splits(labels: npt.NDArray) -> npt.NDArray[np.uint8]:
    """20 nodes per class train, 500 others validate, 1000 others test: the same ones each time.

    A smaller graph validates on a third of the remaining nodes and tests on the others.
    """
    order = seeding.permutation(len(labels), "linqs splits")
    splits = np.zeros(len(labels), np.uint8)
    for label in np.unique(labels):
        splits[order[labels[order] == label][:_TRAIN_PER_CLASS]] = 1
    rest = order[splits[order] == 0]
    num_valid = min(_NUM_VALID, len(rest) // 3)
    splits[rest[:num_valid]] = 2
    splits[rest[num_valid : num_valid + _NUM_TEST]] = 3
    return splits


def _read_content(path: Path) -> tuple[dict[str, int], npt.NDArray[np.float32], list[str]]:
    """Paper id -> node, words [N, F], class of each node."""
    ids: dict[str, int] = {}
    rows: list[npt.NDArray] = []
    classes: list[str] = []
    for number, line in enumerate(_lines(path), 1):
        paper, *words, label = line.split() if len(line.split()) > 1 else (line, "")
        if odd := [word for word in words if word not in ("0", "1")]:
            raise _error(path, number, "words as 0 or 1", odd[0][:60])
        row = np.array(words, dtype=np.float32)
        if paper in ids or (rows and len(row) != len(rows[0])) or not len(row):
            wanted = f"{len(rows[0]) if rows else 'some'} words of a paper not yet listed"
            raise _error(path, number, wanted, f"{len(row)} words of paper {paper}")
        ids[paper] = len(ids)
        rows.append(row)
        classes.append(label)
    return ids, np.stack(rows), classes


def _read_cites(path: Path, ids: dict[str, int]) -> npt.NDArray[np.int32]:
    """(citing, cited) as nodes, int32 [M, 2], in the order of the file."""
    pairs = []
    for number, line in enumerate(_lines(path), 1):
        papers = line.split()
        if len(papers) != 2 or not all(paper in ids for paper in papers):
            raise _error(path, number, "two papers of cora.content", line[:60])
        pairs.append((ids[papers[1]], ids[papers[0]]))
    return np.array(pairs, dtype=np.int32)


def _lines(path: Path) -> list[str]:
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: expected a text file, got {error}; fetch it again") from None
    if not lines:
        raise UsageError(f"{path}: expected papers, got an empty file; fetch it again")
    return lines


def _error(path: Path, number: int, expected: str, got: str) -> UsageError:
    return UsageError(
        f"{path}, line {number}: expected {expected}, got {got}; fetch the file again"
    )
