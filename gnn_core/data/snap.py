"""cit-HepTh as SNAP publishes it (Leskovec et al., KDD 2005) -> the files that `ogb_raw` reads.

`cit-HepTh.txt.gz`: the arXiv numbers of the citing and the cited paper, two a line, without leading
zeros: 1001 is hep-th/0001001, of January 2000. Papers are numbered here from the oldest to the
newest by that number. Called by `catalog` after a download.
"""

from __future__ import annotations

import gzip
import io
import zlib

import numpy as np

from gnn_core.data.casts import cast
from gnn_core.usage import UsageError

URL = "https://snap.stanford.edu/data/cit-HepTh.txt.gz"
MOST_BYTES = 1 << 24  # of the download
_MOST_TEXT = 1 << 26  # of its content
_COMMENTS = 100  # lines of them, at most
_LARGEST_NUMBER = 9_999_999  # the number of December 99, at most
_NUM_PAPERS, _NUM_CITATIONS = 27_770, 352_807


def ogb_files(
    archive: bytes, num_papers: int = _NUM_PAPERS, num_citations: int = _NUM_CITATIONS
) -> dict[str, bytes]:
    """Name -> content of the files in OGB's raw layout.

    Raises:
        ValueError: the content is not that of SNAP's file, or has other numbers of papers and
            citations than are published.
    """
    try:
        with gzip.open(io.BytesIO(archive)) as file:
            text = file.read(_MOST_TEXT + 1)
        if len(text) > _MOST_TEXT or text.count(b"\n") > 2 * num_citations + _COMMENTS:
            raise ValueError("far more lines than are published")
        lines = text.decode("ascii").splitlines()
        numbers = np.loadtxt(lines, dtype=np.float64, ndmin=2)
        pairs = cast(numbers, np.int64, "arXiv numbers", _error, 0, _LARGEST_NUMBER)
    except (OSError, EOFError, ValueError, zlib.error, UsageError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"expected gzipped pairs of arXiv numbers, got {reason}") from None
    papers, ends = np.unique(pairs, return_inverse=True)
    if pairs.shape != (num_citations, 2) or len(papers) != num_papers:
        raise ValueError(
            f"expected {num_citations} pairs of {num_papers} papers, got an array of shape "
            f"{list(pairs.shape)} with {len(papers)}"
        )
    two_digits = papers // 100_000
    years = np.where(two_digits > 50, 1900, 2000) + two_digits
    order = np.lexsort((papers, years))
    numbers = np.empty(len(papers), np.int64)
    numbers[order] = np.arange(len(papers))
    edges = numbers[ends.reshape(pairs.shape)]
    edges = edges[np.lexsort((edges[:, 1], edges[:, 0]))]
    return {
        "raw/edge.csv.gz": _csv(edges),
        "raw/num-node-list.csv.gz": _csv(np.array([[len(papers)]])),
        "raw/num-edge-list.csv.gz": _csv(np.array([[len(edges)]])),
        "raw/node_year.csv.gz": _csv(years[order, None]),
    }


def _error(expected: str, got: object) -> UsageError:
    return UsageError(f"{got} among {expected}")


def _csv(rows: np.ndarray) -> bytes:
    text = "\n".join(",".join(map(str, row)) for row in rows.tolist()) + "\n"
    return gzip.compress(text.encode("ascii"), mtime=0)
