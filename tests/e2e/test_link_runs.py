"""Link prediction as a user types it: whole runs, and what may be wrong with its data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnn_core.data.graph import Graph, write_graph
from tests.e2e.small import Place
from tests.e2e.test_bad_input import assert_refused
from tests.unit.made_links import citation2, citing, write_citation2

pytestmark = pytest.mark.needs_torch
LINK: dict[str, Any] = {"task": "link", "candidates": 50, "eval_edges": 40, "lr": None}
SHORT = {**LINK, "edges_per_epoch": 128}


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Give a data root that holds ogbl-citation2, made small."""
    write_citation2(citation2(), tmp_path / "data" / "ogbl_citation2")
    return tmp_path / "data"


def citation2_flags(place: Place, root: Path, **changes: Any) -> list[str]:
    given = {**LINK, "dataset": "ogbl-citation2", "data_root": root, "candidates": 30, **changes}
    return place.flags(**{"cache_dir": place.folder / "cache", **given})


def test_the_newest_references_of_the_default_graph(single: Callable, place: Place) -> None:
    done = single(place.flags(**LINK, epochs=1, edges_per_epoch=1000))
    assert done.code == 0, done.err
    record = place.record()
    assert record.status == "ok"
    assert record.config["hold_out"] == "newest"
    assert record.final["test_count"] == record.dataset.splits["test"] == 100  # of 2000 papers
    assert record.epochs[0].valid_mrr is not None
    assert 0 < record.final["test_mrr"] <= record.final["test_hits_10"] + 0.1 <= 1.1
    assert "mrr" in done.out.lower()


def test_a_model_learns_to_rank(single: Callable, place: Place) -> None:
    settings = {"hidden": 32, "global_batch_size": 512, "dropout": 0, "input_dropout": 0}
    assert single(place.flags(**{**LINK, "lr": 0.01}, **settings, epochs=2)).code == 0
    final = place.record().final
    by_chance = sum(1 / rank for rank in range(1, 52)) / 51  # of 51 places each as likely
    assert final["test_mrr"] > 2.5 * by_chance  # after the first step it is 2.4, and 0.735
    assert final["test_auc"] > 0.75


def test_a_published_split_is_taken_as_it_is(
    single: Callable, place: Place, published: Path
) -> None:
    done = single(citation2_flags(place, published))
    assert done.code == 0, done.err
    record = place.record()
    assert record.config["hold_out"] == "published" and record.config["held_out"] is None
    sizes = {split: len(a["source_node"]) for split, a in citation2().splits.items()}
    assert record.dataset.splits == sizes
    assert (record.final["valid_count"], record.final["test_count"]) == (20, 25)
    again = single(citation2_flags(place, published, candidates=7))
    assert again.code == 0
    assert place.record().step_losses == record.step_losses
    assert place.record().final["test_mrr"] > record.final["test_mrr"]


def test_an_interrupted_run_goes_on(single: Callable, place: Place) -> None:
    settings = {**LINK, "negatives": 2, "edges_per_epoch": 1000}
    assert single(place.flags(**settings, epochs=2)).code == 0
    whole = place.record()
    saving = {**settings, "checkpoint_dir": place.saved}
    assert single(place.flags(**saving, epochs=1)).code == 0
    first = place.record()
    assert single(place.flags(**saving, epochs=2, resume=True)).code == 0
    rest = place.record()
    losses = [*(first.step_losses or []), *(rest.step_losses or [])]
    assert losses == pytest.approx(whole.step_losses, rel=1e-12)
    for name, value in whole.final.items():
        assert rest.final[name] == pytest.approx(value, rel=1e-12), name


def test_papers_that_are_not_known_to_cite(
    single: Callable, place: Place, tiny_graph: Graph
) -> None:
    write_graph(tiny_graph, place.folder / "undirected")
    done = single(place.flags(**LINK, dataset=place.folder / "undirected"))
    words = ["needs to know who cites whom (citations)", "choose another --dataset"]
    assert_refused(done.code, done.err, "graph tiny: link prediction ", *words)


def test_papers_without_years(single: Callable, place: Place) -> None:
    write_graph(citing(years=False), place.folder / "undated")
    done = single(place.flags(**LINK, dataset=place.folder / "undated"))
    words = ["expected a year for each paper", "has no years; use --hold-out random"]
    assert_refused(done.code, done.err, "--hold-out newest: ", *words)


def test_wide_features_of_few_papers(single: Callable, place: Place) -> None:
    write_graph(citing(width=0), place.folder / "bare")
    done = single(place.flags(**LINK, dataset=place.folder / "bare", svd_width=150))
    words = ["expected less than the number of papers, 150; lower it"]
    assert_refused(done.code, done.err, "--svd-width 150: ", *words)


def test_more_candidates_than_papers(single: Callable, place: Place) -> None:
    done = single(place.flags(**{**LINK, "candidates": 2001}))
    words = ["has a held-out reference that can be ranked against ", "papers only; lower it"]
    assert_refused(done.code, done.err, "--candidates 2001: graph ", *words)
    assert not place.saved.exists() and "epoch" not in done.out


def test_more_candidates_than_published(single: Callable, place: Place, published: Path) -> None:
    done = single(citation2_flags(place, published, candidates=31))
    words = ["is published with 30 for each reference; ask for no more"]
    assert_refused(done.code, done.err, "--candidates 31: graph ogbl-citation2", *words)


def test_other_edges_than_published(single: Callable, place: Place, published: Path) -> None:
    done = single(citation2_flags(place, published, hold_out="random"))
    assert_refused(done.code, done.err, "--hold-out random: ", "use published")


def test_classes_of_a_graph_that_has_links_only(
    single: Callable, place: Place, published: Path
) -> None:
    flags = place.flags(
        dataset="ogbl-citation2", data_root=published, cache_dir=place.folder / "cache"
    )
    done = single(flags)
    assert_refused(done.code, done.err, "graph ogbl-citation2: node classification needs labels")


def missing_key(data: Any) -> None:
    del data.splits["test"]["target_node_neg"]


def wrong_shape(data: Any) -> None:
    data.splits["valid"]["target_node"] = data.splits["valid"]["target_node"][1:]


def id_out_of_range(data: Any) -> None:
    data.splits["train"]["target_node"][3] = 200


def other_edges(data: Any) -> None:
    data.edges = np.roll(data.edges, 1, axis=1)


def asks_for_something_evil(data: Any) -> None:
    data.splits["valid"]["source_node"] = Path("/tmp")  # a name like any other: not an array's


FILES: dict[str, tuple[Callable[[Any], None], list[str]]] = {
    "a missing key": (missing_key, ["test.pt: expected target_node_neg, got only source_node"]),
    "a wrong shape": (wrong_shape, ["valid.pt: expected target_node of shape [edges]", "got [19]"]),
    "an id out of range": (id_out_of_range, ["train.pt: expected node ids from 0 to 199", "200"]),
    "other edges": (other_edges, ["edge.csv.gz: expected the edges of train.pt, got others"]),
    "something evil": (asks_for_something_evil, ["valid.pt", "got a pickle that asks for pathlib"]),
}


@pytest.mark.parametrize("case", FILES)
def test_wrong_files_of_a_published_split(single: Callable, place: Place, case: str) -> None:
    data, root = citation2(), place.folder / "data"
    damage, words = FILES[case]
    damage(data)
    write_citation2(data, root / "ogbl_citation2")
    done = single(citation2_flags(place, root))
    assert_refused(done.code, done.err.splitlines()[-1], *words, "fetch")


def test_another_file_in_place_of_a_split(single: Callable, place: Place, published: Path) -> None:
    split = published / "ogbl_citation2" / "split" / "time" / "valid.pt"
    split.write_bytes(b"something else")
    done = single(citation2_flags(place, published))
    assert_refused(done.code, done.err.splitlines()[-1], "valid.pt", "got another format")


OTHER_SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"predictor_layers": 2}, "--predictor-layers was 3, now 2"),
    ({"hidden": 24}, "--hidden was 16, now 24"),
    ({"shared_negatives": True}, "--shared-negatives was False, now True"),
    ({"held_out": 0.1}, "--held-out was 0.05, now 0.1"),
    ({**dict.fromkeys(SHORT), "task": "node"}, "--task was link, now node"),
]


def test_the_checkpoint_of_other_settings(single: Callable, place: Place) -> None:
    assert single(place.saving(**SHORT, epochs=1)).code == 0
    before = (place.saved / "last.safetensors").read_bytes()
    for changes, words in OTHER_SETTINGS:
        done = single(place.saving(**{**SHORT, **changes}, resume=True))
        assert_refused(done.code, done.err, "last.safetensors: it is of another run", words)
    assert (place.saved / "last.safetensors").read_bytes() == before
