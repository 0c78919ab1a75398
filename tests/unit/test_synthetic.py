"""The synthetic graph: its bytes depend on the seed and the settings, and on nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnn_core.data.features import decode_features
from gnn_core.data.graph import Graph
from gnn_core.data.graph_statistics import edge_homophily
from gnn_core.data.synthetic import FIRST_YEAR, NUM_YEARS, generate
from gnn_core.data.synthetic_spec import PRESETS, SyntheticSpec
from gnn_core.usage import UsageError

PINNED = {
    "citations.npy": "74b22b3148e3",
    "features.npy": "4b8c66109b2e",
    "indices.npy": "273ae9ca9694",
    "indptr.npy": "54d45c71ab5c",
    "labels.npy": "6dfa0c0c3110",
    "splits.npy": "c19f8a55906d",
    "years.npy": "b62b9de2860d",
}


def make(folder: Path, text: str = "synthetic:papers=2000", **options: Any) -> Graph:
    """Generate a graph and open it."""
    generate(SyntheticSpec.parse(text), folder, **options)
    return Graph.open(folder, verify=True)


def sums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """Give 20 000 papers, the default."""
    return make(tmp_path_factory.mktemp("synthetic") / "graph", "synthetic")


def test_the_same_bytes_whatever_the_chunk_the_budget_and_the_threads(tmp_path: Path) -> None:
    make(tmp_path / "a", threads=1)
    make(tmp_path / "b")
    make(tmp_path / "c", chunk_papers=17, budget_bytes=20_000, threads=3)
    assert sums(tmp_path / "a") == sums(tmp_path / "b") == sums(tmp_path / "c")


def test_the_bytes_are_the_same_as_ever(tmp_path: Path) -> None:
    """Whoever changes them changes every recorded loss curve: then GENERATOR must change too."""
    graph = make(tmp_path / "g", "synthetic:papers=500,num_features=16,num_topics=5,seed=3")
    first = {file: digest[:12] for file, digest in graph.meta["checksums"].items()}
    assert first == PINNED


def test_another_seed_makes_another_graph(tmp_path: Path) -> None:
    one, two = make(tmp_path / "1"), make(tmp_path / "2", "synthetic:papers=2000,seed=2")
    for name in ("labels", "features", "citations", "indices"):
        assert one.meta["checksums"][f"{name}.npy"] != two.meta["checksums"][f"{name}.npy"]


def test_it_is_a_citation_graph(graph: Graph) -> None:
    citing, cited = np.asarray(graph.citations).T
    assert (cited < citing).all(), "a paper cites a younger one"
    assert (np.diff(citing) >= 0).all()
    assert len(np.unique(graph.citations, axis=0)) == len(graph.citations)
    assert graph.num_edges == 2 * len(graph.citations)
    assert len(citing) / graph.num_nodes == pytest.approx(8, rel=0.05)
    assert (np.diff(graph.years) >= 0).all()
    assert set(graph.years) == set(range(FIRST_YEAR, FIRST_YEAR + NUM_YEARS))
    volumes = np.bincount(graph.years)[FIRST_YEAR:]
    assert (np.diff(volumes) > 0).all(), "fewer papers than the year before"


def test_fame_is_unequal(graph: Graph) -> None:
    cited = np.sort(np.bincount(np.asarray(graph.citations)[:, 1], minlength=graph.num_nodes))
    top = cited[-graph.num_nodes // 100 :].sum() / cited.sum()
    assert top > 0.08, "1 % of the papers get little more than 1 % of the citations"
    assert cited[-1] > 20 * cited.mean()


def test_splits_follow_the_years(graph: Graph) -> None:
    last = [graph.years[graph.split(which)].max() for which in ("train", "valid", "test")]
    first = [graph.years[graph.split(which)].min() for which in ("train", "valid", "test")]
    assert last == [2016, 2018, 2020] and first == [2001, 2017, 2019]
    sizes = [len(graph.split(which)) / graph.num_nodes for which in ("train", "valid", "test")]
    assert sizes == pytest.approx([0.63, 0.17, 0.20], abs=0.01)


def test_few_papers_may_be_labelled(tmp_path: Path) -> None:
    whole, few = make(tmp_path / "1"), make(tmp_path / "2", "synthetic:papers=2000,labelled=0.1")
    chosen = np.asarray(few.splits) > 0
    assert chosen.mean() == pytest.approx(0.1, abs=0.02)
    assert np.array_equal(few.splits[chosen], whole.splits[chosen])
    assert few.split_size("train") == len(few.split("train"))
    for name in ("labels", "features", "citations", "indices"):
        assert few.meta["checksums"][f"{name}.npy"] == whole.meta["checksums"][f"{name}.npy"]


@pytest.mark.parametrize("homophily", [0.1, 0.4, 0.65, 0.9, 1.0])
def test_homophily_is_what_was_asked(tmp_path: Path, homophily: float) -> None:
    graph = make(tmp_path / "g", f"synthetic:papers=8000,num_features=8,homophily={homophily}")
    assert edge_homophily(graph) == pytest.approx(homophily, abs=0.03)


def test_words_are_sparse_and_tell_of_the_topic(graph: Graph) -> None:
    features = np.asarray(graph.features)
    assert set(np.unique(features)) == {0.0, 1.0}
    assert 7 < features.sum(axis=1).mean() < 10
    # Nearest mean of the training papers: better than chance, far from perfect.
    train, test = graph.split("train"), graph.split("test")
    means = np.stack([features[train][graph.labels[train] == c].mean(axis=0) for c in range(16)])
    scores = features[test] @ means.T - 0.5 * (means**2).sum(axis=1)
    accuracy = (scores.argmax(axis=1) == graph.labels[test]).mean()
    assert 0.35 < accuracy < 0.65


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_features_of_half_width(tmp_path: Path, dtype: str) -> None:
    whole = make(tmp_path / "float32")
    half = make(tmp_path / dtype, f"synthetic:papers=2000,feature_dtype={dtype}")
    assert half.feature_dtype == dtype and half.features.itemsize == 2
    np.testing.assert_array_equal(decode_features(half.features), whole.features)


@pytest.mark.parametrize(
    "text", ["synthetic:papers=100,num_topics=2", "synthetic:papers=100,num_topics=900"]
)
def test_small_graphs_are_whole(tmp_path: Path, text: str) -> None:
    graph = make(tmp_path / "g", text)
    assert all(len(graph.split(which)) for which in ("train", "valid", "test"))
    assert graph.num_edges > 100


def test_the_preset_has_the_size_of_ogbn_arxiv() -> None:
    arxiv = PRESETS["synthetic-arxiv"]
    assert (arxiv.papers, arxiv.num_features, arxiv.num_topics) == (169_343, 128, 40)
    # 1 166 243 citations there; a few of ours repeat each other.
    assert arxiv.papers * arxiv.citations_per_paper == pytest.approx(1_166_243, rel=0.05)


def test_spec_strings() -> None:
    parse = SyntheticSpec.parse
    assert parse("synthetic") == SyntheticSpec() and parse("synthetic:") == SyntheticSpec()
    for text in ("1e6", "1000000", "1_000_000"):
        assert parse(f"synthetic:papers={text}").papers == 1_000_000
    spec = parse("synthetic: papers = 5000 , homophily=.5,feature_dtype=float16")
    assert spec == SyntheticSpec(papers=5000, homophily=0.5, feature_dtype="float16")
    assert parse("synthetic-arxiv:seed=9").papers == 169_343
    assert parse("synthetic:seed=9007199254740991").seed == 2**53 - 1


@pytest.mark.parametrize("text", ["synthetic", "synthetic-arxiv", "synthetic:papers=5000,seed=4"])
def test_the_canonical_spec_means_the_same(text: str) -> None:
    spec = SyntheticSpec.parse(text)
    assert SyntheticSpec.parse(spec.canonical()) == spec
    assert spec.canonical() == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("synthetic:paper=5", "unknown setting 'paper', did you mean papers?"),
        ("synthetic:zzz=5", "unknown setting 'zzz'; it knows papers, "),
        ("synthetic:papers", "expected papers=VALUE, got 'papers'"),
        ("synthetic:papers=", "expected papers=VALUE, got 'papers='"),
        ("synthetic:papers=many", "expected a number for papers, got 'many'"),
        ("synthetic:papers=1000.5", "expected a whole number for papers, got '1000.5'"),
        ("synthetic:papers=99", "expected papers from 100 to 2e+09, got 99"),
        ("synthetic:papers=inf", "expected a number for papers, got 'inf'"),
        ("synthetic:homophily=1.5", "expected homophily from 0 to 1, got 1.5"),
        ("synthetic:homophily=nan", "expected"),
        ("synthetic:closure=-0.1", "expected closure from 0 to 1, got -0.1"),
        ("synthetic:seed=1,seed=2", "expected seed once"),
        ("synthetic:feature_dtype=float61", "got 'float61', did you mean float16?"),
        ("synthetik", "got 'synthetik', did you mean synthetic?"),
    ],
)
def test_wrong_specs_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        SyntheticSpec.parse(text)
    assert message in str(caught.value) and "\n" not in str(caught.value)
