"""A synthetic citation graph of any size, from one seed, written straight to disk.

Papers appear in order of time. A paper has a topic (its label), words (its features) and citations
of older papers. Most citations stay within the topic, and whom a paper cites is often copied from
what an earlier paper of that topic cites, so that a few papers become famous, as in life. Words are
noisy: they alone classify about half of the papers, the neighbourhood classifies most.

Every paper, word and citation is a pure function of (seed, number of the paper, slot). Nothing
depends on the order of work, on the size of a chunk, on the number of threads or on a running
generator, so the same seed and size give the same bytes anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gnn_core.compiled import njit
from gnn_core.data.checks import index_dtype
from gnn_core.data.csr import DEFAULT_BUDGET_BYTES, edges_in, write_csr
from gnn_core.data.features import FEATURE_DTYPES, encode_features
from gnn_core.data.ordered_map import ordered_map, threads_to_use
from gnn_core.data.progress import Progress, silent
from gnn_core.data.room import require_room
from gnn_core.data.store import GraphWriter
from gnn_core.data.synthetic_spec import SyntheticSpec
from gnn_core.seeding import below, mix, stream

GENERATOR = "citation graph generator 1"  # change it whenever the same parameters give other bytes
FIRST_YEAR = 2001
NUM_YEARS = 20
_YEARLY_GROWTH = 1.1
_VALID_YEARS = _TEST_YEARS = 2
_LONGEST_CHAIN = 32  # of citations copied from citations; half of them end at each link
_CHUNK_PAPERS = 1 << 15
_CHUNK_BYTES = 16 << 20  # of words at once
_BLOCK_PAPERS = 512
_ARCHIVE_BYTES = 24  # of memory per paper: what `PaperAttributes` holds, labels, years, degrees
_SECOND = np.uint64(1 << 32)  # a slot that no citation has
_CLOSES, _CLOSED = np.uint64(1 << 33), np.uint64(1 << 34)  # added to a slot: others of its numbers
_ONE = 1 << 32  # the number 1 where probabilities are 32-bit fractions


def generate(
    spec: SyntheticSpec,
    folder: Path,
    name: str | None = None,
    progress: Progress = silent,
    budget_bytes: int = DEFAULT_BUDGET_BYTES,
    chunk_papers: int = _CHUNK_PAPERS,
    threads: int | None = None,
) -> None:
    """Write the graph of `spec` to `folder`. No budget, chunk or number of threads changes a byte.

    Raises UsageError, before anything is made, where it does not fit on the disk or in memory.

    Args:
        spec: what to generate.
        folder: where.
        name: of the graph; its canonical spec if None.
        progress: is told of chunks of words, of citations, and of ranges of the adjacency.
        budget_bytes: of memory for building the adjacency.
        chunk_papers: papers drawn at once; fewer where their words take more than 16 MiB.
        threads: that draw; one for each core, up to 8, if None.
    """
    threads = threads or threads_to_use()
    _require_room(spec, folder, budget_bytes, threads)
    archive = PaperAttributes(spec)
    with GraphWriter(folder, name or spec.canonical()) as writer:
        writer.put("labels", archive.topics.astype(np.int32))
        writer.put("years", archive.years())
        writer.put("splits", archive.splits())
        stored = FEATURE_DTYPES[spec.feature_dtype]
        with writer.stream("features", stored, (spec.papers, spec.num_features)) as sink:
            few = min(chunk_papers, max(1, _CHUNK_BYTES // _row_bytes(spec)))
            for rows in _drawn(archive.features, spec.papers, few, threads, "words", progress):
                sink.write(rows)
        with writer.stream("citations", index_dtype(spec.papers), (None, 2)) as sink:
            draw = archive.citations
            for rows in _drawn(draw, spec.papers, chunk_papers, threads, "citations", progress):
                sink.write(rows)
        del archive, draw
        write_csr(
            writer,
            edges_in(writer.path("citations")),
            spec.papers,
            budget_bytes=budget_bytes // threads,
            progress=progress,
            threads=threads,
        )
        provenance = {"generator": GENERATOR, "parameters": spec.parameters()}
        writer.finish(spec.num_topics, provenance)


def _require_room(spec: SyntheticSpec, folder: Path, budget_bytes: int, threads: int) -> None:
    ids = index_dtype(spec.papers).itemsize
    citations = spec.papers * spec.citations_per_paper
    columns = spec.papers * (8 + 4 + 4 + 1)  # indptr, labels, years, splits
    what = f"{spec.canonical()} of {spec.papers:,} papers"
    # Citations as they are made, and both ways; a few of them are repeats.
    disk = spec.papers * _row_bytes(spec) + columns + 4 * citations * ids
    chunk = max(_row_bytes(spec), _CHUNK_BYTES, _CHUNK_PAPERS * 4 * spec.citations_per_paper * ids)
    held = min(budget_bytes, int(2 * citations) * (ids + 8))
    require_room(what, folder, disk, _ARCHIVE_BYTES * spec.papers + (threads + 2) * chunk + held)


def _row_bytes(spec: SyntheticSpec) -> int:
    return spec.num_features * FEATURE_DTYPES[spec.feature_dtype].itemsize


class PaperAttributes:
    """What is known of all papers at once: 10 bytes per paper. The rest is computed when asked.

    Attributes:
        topics: int16 `[N]`, of each paper.
        first: int64 `[num_topics]`, where the papers of a topic begin in `members`.
        members: int32 `[N]`, papers by topic, then by age.
        ranks: int32 `[N]`, how many older papers share the topic.
        odds: share of devoted papers, and the chance that they, and the others, cite their own
            topic: see `_odds`, as 32-bit fractions.
    """

    def __init__(self, spec: SyntheticSpec) -> None:
        self.spec = spec
        # A few large fields and many small ones.
        weights = 1.0 / np.sqrt(1.0 + np.arange(spec.num_topics))
        self.topics = np.empty(spec.papers, np.int16)
        _draw_topics(stream(spec.seed, "topics"), _thresholds(weights), self.topics)
        counts = np.bincount(self.topics, minlength=spec.num_topics)
        self.first = np.cumsum(counts) - counts
        self.members = np.empty(spec.papers, np.int32)
        self.ranks = np.empty(spec.papers, np.int32)
        _rank(self.topics, self.first, self.members, self.ranks)
        self.odds = _odds(spec.homophily, float(np.sum((counts / spec.papers) ** 2)))
        growth = np.cumprod(np.full(NUM_YEARS, _YEARLY_GROWTH))
        self.year_ends = _thresholds(growth).astype(np.int64) * spec.papers // _ONE

    def years(self) -> npt.NDArray[np.int32]:
        """Year of each paper, int32 [N], never decreasing."""
        lengths = np.diff(self.year_ends, prepend=0)
        return np.repeat(np.arange(FIRST_YEAR, FIRST_YEAR + NUM_YEARS, dtype=np.int32), lengths)

    def splits(self) -> npt.NDArray[np.uint8]:
        """The oldest papers train, the newest test, and few are labelled if so: uint8 [N]."""
        splits = np.ones(self.spec.papers, np.uint8)
        splits[self.year_ends[-_VALID_YEARS - _TEST_YEARS - 1] :] = 2
        splits[self.year_ends[-_TEST_YEARS - 1] :] = 3
        if self.spec.labelled < 1:
            key = stream(self.spec.seed, "labelled")
            _leave_out(key, _fraction(self.spec.labelled), splits)
        return splits

    def features(self, low: int, high: int) -> npt.NDArray:
        """Words of the papers low .. high - 1: zeros and ones, [high - low, num_features]."""
        spec = self.spec
        rows = np.zeros((high - low, spec.num_features), FEATURE_DTYPES[spec.feature_dtype])
        one = encode_features(np.ones(1, np.float32), spec.feature_dtype)[0]
        keys = (stream(spec.seed, "words"), stream(spec.seed, "vocabulary"))
        bits = f"u{rows.itemsize}"  # of a number, since compiled loops know no halves
        clarity = _fraction(spec.clarity)
        _draw_words(keys, low, self.topics, spec.words, clarity, rows.view(bits), one.view(bits))
        return rows

    def citations(self, low: int, high: int) -> npt.NDArray:
        """Citations of the papers low .. high - 1, sorted, without repeats: [k, 2]."""
        spec = self.spec
        mean = np.uint32(round(spec.citations_per_paper * 65536))
        most = 2 * int(np.ceil(spec.citations_per_paper)) + 1
        pairs = np.empty(((high - low) * most, 2), index_dtype(spec.papers))
        names = ("citations", "aims", "lengths")
        keys = tuple(stream(spec.seed, name) for name in names)
        known = (self.topics, self.first, self.members, self.ranks)
        odds = (*self.odds, _fraction(spec.closure))
        return pairs[: _draw_citations(keys, odds, mean, low, high, known, pairs)]


def _drawn(
    draw: Callable[[int, int], npt.NDArray],
    papers: int,
    size: int,
    threads: int,
    what: str,
    progress: Progress,
) -> Iterator[npt.NDArray]:
    """What `draw` gives for `size` papers after the other, in order."""

    def of_chunk(low: int) -> npt.NDArray:
        return draw(low, min(low + size, papers))

    lows = range(0, papers, size)
    for low, rows in zip(lows, ordered_map(of_chunk, lows, threads), strict=True):
        progress(what, low, papers)
        yield rows
    progress(what, papers, papers)


def _odds(homophily: float, by_chance: float) -> tuple[np.uint64, np.uint64, np.uint64]:
    """Share of devoted papers, and the chance that they, and the others, cite their own topic.

    Of the papers, `a` are devoted: they aim at their topic with chance (1 + a) / 2, otherwise at
    any paper, which hits the topic `by_chance`. The others border on a second topic: they aim at
    their own with chance a / 2, otherwise at the second. Asking for the mean gives a quadratic.
    """
    linear = 1.0 + by_chance / 2.0
    a = (linear - np.sqrt(linear**2 - 2.0 * by_chance * homophily)) / by_chance
    return _fraction(a), _fraction((1.0 + a) / 2.0), _fraction(a / 2.0)


def _fraction(probability: float) -> np.uint64:
    return np.uint64(round(probability * _ONE))


def _thresholds(weights: npt.NDArray) -> npt.NDArray[np.uint64]:
    """Cumulated shares as 32-bit fractions; the last is exactly 1."""
    # Whole numbers from here on: a last digit that differs between machines would change bytes.
    ends = np.cumsum(np.round(weights / weights.sum() * (_ONE >> 8)).astype(np.int64))
    thresholds: npt.NDArray[np.uint64] = (ends * _ONE // ends[-1]).astype(np.uint64)
    return thresholds


@njit(cache=True, nogil=True)
def _draw_topics(key, thresholds, topics):  # type: ignore[no-untyped-def]
    for paper in range(len(topics)):
        bits = mix(key, np.uint64(paper)) >> np.uint64(32)
        topics[paper] = np.searchsorted(thresholds, bits, side="right")


@njit(cache=True, nogil=True)
def _leave_out(key, share, splits):  # type: ignore[no-untyped-def]
    """Leave that share of the papers in their splits."""
    for paper in range(len(splits)):
        if (mix(key, np.uint64(paper)) >> np.uint64(32)) >= share:
            splits[paper] = 0


@njit(cache=True, nogil=True)
def _rank(topics, first, members, ranks):  # type: ignore[no-untyped-def]
    counts = np.zeros(len(first), np.int64)
    for paper in range(len(topics)):
        topic = topics[paper]
        members[first[topic] + counts[topic]] = paper
        ranks[paper] = counts[topic]
        counts[topic] += 1


@njit(cache=True, nogil=True, inline="always")
def _small(bits, bound):  # type: ignore[no-untyped-def]
    """An integer in [0, bound), smaller ones likelier: half of them are below bound / 4."""
    uniform = bits >> np.uint64(32)
    return np.int64((((uniform * uniform) >> np.uint64(32)) * np.uint64(bound)) >> np.uint64(32))


@njit(cache=True, nogil=True)
def _draw_words(keys, low, topics, words, clarity, rows, one):  # type: ignore[no-untyped-def]
    """A word comes from the topic with chance `clarity`, else from the language all share."""
    key, vocabulary = keys
    num_words = rows.shape[1]
    own = max(4, num_words // 8)  # words that a topic prefers; topics overlap in them
    for row in range(len(rows)):
        state = mix(key, np.uint64(low + row))
        topic = mix(vocabulary, np.uint64(topics[low + row]))
        for slot in range(words):
            bits = mix(state, np.uint64(slot))
            if (bits & np.uint64(0xFFFFFFFF)) < clarity:
                word = below(mix(topic, np.uint64(_small(bits, own))), np.uint32(num_words))
            else:
                word = _small(bits, num_words)
            rows[row, word] = one


@njit(cache=True, nogil=True, inline="always")
def _length(key, paper, mean):  # type: ignore[no-untyped-def]
    """How many citations a paper makes: from 1 to twice the mean (given in 1/65536)."""
    drawn = np.int64(below(mix(key, np.uint64(paper)), np.uint32(2 * mean)))
    return max(np.int64(1), (drawn + 32768) >> 16)


@njit(cache=True, nogil=True)
def _draw_citations(keys, odds, mean, low, high, known, pairs):  # type: ignore[no-untyped-def]
    """Fill `pairs` with (citing, cited) for the papers low .. high - 1; how many there are.

    A block of papers at a time, so that what a block needs stays in the cache of a core.
    """
    _, first, members, _ = known
    most = max(np.int64(1), (np.int64(2 * mean) + 32768) >> 16)
    # Of each citation: the paper reached so far, how many older papers share its topic, where those
    # begin in `members`, the slot to copy from, and its own slot.
    reached = np.empty((_BLOCK_PAPERS * most, 5), np.int64)
    active = np.empty(_BLOCK_PAPERS * most, np.int64)
    ends = np.empty(_BLOCK_PAPERS, np.int64)
    older = np.empty(len(first), np.int64)  # papers of each topic that are older than the next one
    for topic in range(len(first)):
        end = first[topic + 1] if topic + 1 < len(first) else len(members)
        older[topic] = np.searchsorted(members[first[topic] : end], low)
    kept = 0
    for begin in range(low, high, _BLOCK_PAPERS):
        end = min(begin + _BLOCK_PAPERS, high)
        copying = _aim(keys, odds, mean, begin, end, known, older, reached, active, ends)
        _follow(keys, mean, members, reached, active, copying)
        if odds[3] > 0:
            copying = _close(keys, odds, mean, begin, end, known, reached, active, ends)
            _follow(keys, mean, members, reached, active, copying)
        kept = _append_sorted(begin, end, reached, ends, pairs, kept)
    return kept


@njit(cache=True, nogil=True)
def _aim(keys, odds, mean, begin, end, known, older, reached, active, ends):  # type: ignore[no-untyped-def]
    """The papers that the citations of a block aim at; how many of those are to be copied from."""
    devoted, focused, bordering, closure = odds
    topics, first, members, ranks = known
    count = copying = 0
    for paper in range(begin, end):
        state = mix(keys[1], np.uint64(paper))
        second = np.int64(-1)
        aim = focused
        if (state >> np.uint64(32)) >= devoted:
            others = np.uint32(len(first) - 1)
            second = (topics[paper] + 1 + np.int64(below(mix(state, _SECOND), others))) % len(first)
            aim = bordering
        own = np.int64(topics[paper])
        for slot in range(_length(keys[2], paper, mean) if paper > 0 else 0):
            bits = mix(state, np.uint64(slot))
            copies = bits & np.uint64(1) != 0
            if (bits & np.uint64(0xFFFFFFFF)) < aim and older[own] > 0:
                topic, rank, cited = own, older[own], np.int64(paper)
                copies = True
            elif second >= 0 and older[second] > 0:
                topic, rank = second, older[second] - 1 - _small(bits, older[second])
                cited = np.int64(members[first[topic] + rank])
            else:  # of any topic
                cited = np.int64(paper - 1 - _small(bits, paper))
                topic, rank = np.int64(topics[cited]), np.int64(ranks[cited])
            reached[count, 0] = cited
            reached[count, 1] = rank
            reached[count, 2] = first[topic]
            reached[count, 3] = reached[count, 4] = slot
            active[copying] = count
            copying += copies and not _is_closing(state, slot, closure)
            count += 1
        ends[paper - begin] = count
        older[own] += 1
    return copying


@njit(cache=True, nogil=True, inline="always")
def _is_closing(state, slot, closure):  # type: ignore[no-untyped-def]
    """Whether a citation is one that a cited paper makes; `state` is that of the paper's aims."""
    return slot > 0 and (mix(state, _CLOSES + np.uint64(slot)) >> np.uint64(32)) < closure


@njit(cache=True, nogil=True)
def _close(keys, odds, mean, begin, end, known, reached, active, ends):  # type: ignore[no-untyped-def]
    """Let each closing citation be copied from the last one before it that is not; their number.

    What is copied is a citation that this one makes within its topic, if it makes any: the three
    papers then cite each other.
    """
    devoted, focused, bordering, closure = odds
    topics, first, _, ranks = known
    copying = i = 0
    for paper in range(begin, end):
        state = mix(keys[1], np.uint64(paper))
        last = i
        while i < ends[paper - begin]:
            slot = reached[i, 4]
            if not _is_closing(state, slot, closure):
                last = i
                i += 1
                continue
            cited = reached[last, 0]
            theirs = mix(keys[1], np.uint64(cited))
            aim = focused if (theirs >> np.uint64(32)) < devoted else bordering
            length = _length(keys[2], cited, mean)
            start = np.int64(below(mix(state, _CLOSED + np.uint64(slot)), np.uint32(length)))
            for step in range(length):
                copied = (start + step) % length
                aims = mix(theirs, np.uint64(copied)) & np.uint64(0xFFFFFFFF)
                if aims < aim and not _is_closing(theirs, copied, closure):
                    start = copied
                    break
            reached[i, 0] = cited
            reached[i, 1] = ranks[cited]
            reached[i, 2] = first[topics[cited]]
            reached[i, 3] = start
            active[copying] = i
            copying += 1
            i += 1
    return copying


@njit(cache=True, nogil=True)
def _follow(keys, mean, members, reached, active, copying):  # type: ignore[no-untyped-def]
    """Replace each paper aimed at by one that the citation is copied from, if it is.

    Half of the citations are copied from an older paper of the topic: so, in effect, papers are
    cited in proportion to how often they have been (Kumar et al., "Stochastic models for the Web
    graph", FOCS 2000). The copied citation is recomputed and not looked up: no table is kept.
    All citations of a block go one link at a time, so that their loads of `members` overlap.
    """
    for _ in range(_LONGEST_CHAIN):
        if copying == 0:
            break
        going = 0
        for at in range(copying):
            i = active[at]
            rank = reached[i, 1]
            state = mix(mix(keys[0], np.uint64(reached[i, 0])), np.uint64(reached[i, 3]))
            older = max(np.int64(0), rank - 1 - _small(state, rank))  # the first paper stays
            reached[i, 0] = members[reached[i, 2] + older]
            reached[i, 1] = older
            reached[i, 3] = np.int64(mix(state, np.uint64(0)) >> np.uint64(32))
            active[going] = i
            going += rank > 0 and state & np.uint64(1) == 0
        for at in range(going):
            i = active[at]
            length = np.uint32(_length(keys[2], reached[i, 0], mean))
            reached[i, 3] = below(np.uint64(reached[i, 3]) << np.uint64(32), length)
        copying = going


@njit(cache=True, nogil=True)
def _append_sorted(begin, end, reached, ends, pairs, kept):  # type: ignore[no-untyped-def]
    """Append what each paper of a block cites to the first `kept` pairs, sorted, once each."""
    i = 0
    for paper in range(begin, end):
        own = kept
        while i < ends[paper - begin]:
            cited = reached[i, 0]
            i += 1
            at = kept
            while at > own and pairs[at - 1, 1] > cited:
                at -= 1
            if at > own and pairs[at - 1, 1] == cited:
                continue
            for later in range(kept, at, -1):
                pairs[later, 1] = pairs[later - 1, 1]
            pairs[at, 1] = cited
            pairs[kept, 0] = paper
            kept += 1
    return kept
