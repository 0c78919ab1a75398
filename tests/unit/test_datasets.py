"""Data sets by name: prepared once however many ask, found again, made anew when sources change."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gnn_core.data import datasets, linqs, snap, sources, synthetic
from gnn_core.data.catalog import PUBLISHED, Archive
from gnn_core.data.graph import Graph, write_graph
from gnn_core.data.progress import reporter
from gnn_core.usage import UsageError
from tests.patience import patient

ROOT = Path(__file__).resolve().parents[2]
SMALL = "synthetic:papers=400,num_features=8"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what the user's environment says."""
    for name in ("RINGSAGE_DATA", "RINGSAGE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def cora_root(tmp_path: Path) -> Path:
    """Make a data root with four papers in the files of LINQS Cora."""
    raw = tmp_path / "data" / "cora"
    raw.mkdir(parents=True)
    (raw / "cora.content").write_text("1 1 0 B\n2 0 0 A\n3 0 1 B\n4 1 1 C\n")
    (raw / "cora.cites").write_text("1 2\n2 3\n4 1\n")
    return tmp_path / "data"


@pytest.fixture
def said() -> list[str]:
    """Collect what is said."""
    return []


def refused(call: Callable[[], object]) -> str:
    """Give the one line with which a call is refused."""
    with pytest.raises(UsageError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def folders(cache: Path) -> list[str]:
    """Name what lies in a cache, locks aside."""
    return sorted(p.name for p in (cache / "graphs").iterdir() if not p.name.endswith(".lock"))


def test_prepared_once_then_opened(tmp_path: Path, said: list[str]) -> None:
    first = datasets.load(SMALL, cache_dir=tmp_path, progress=said.append)
    assert len(said) == 1 and "preparing it in" in said[0]
    inode = (first.folder / "indices.npy").stat().st_ino
    second = datasets.load(SMALL, cache_dir=tmp_path, progress=said.append)
    assert len(said) == 1 and (second.folder / "indices.npy").stat().st_ino == inode
    assert first.fingerprint == second.fingerprint and second.name == SMALL


def test_other_parameters_go_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = {datasets.load(f"{SMALL},seed={seed}", cache_dir=tmp_path).folder for seed in (1, 2)}
    assert datasets.load("synthetic:num_features=8,papers=4e2", cache_dir=tmp_path).folder in places
    monkeypatch.setattr(synthetic, "GENERATOR", "another generator")
    places.add(datasets.load(SMALL, cache_dir=tmp_path).folder)
    assert len(places) == 3


def test_the_cache_is_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert datasets.find_cache() == tmp_path / ".cache" / "ringsage"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert datasets.find_cache() == tmp_path / "xdg" / "ringsage"
    monkeypatch.setenv("RINGSAGE_CACHE", str(tmp_path / "mine"))
    assert datasets.find_cache() == tmp_path / "mine"
    assert datasets.find_cache(tmp_path / "given") == tmp_path / "given"


def test_the_data_root_is_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert datasets.find_data_root() is None
    monkeypatch.setenv("RINGSAGE_DATA", str(tmp_path))
    assert datasets.find_data_root() == tmp_path
    assert datasets.find_data_root("/") == Path("/")
    assert "expected a folder, got none" in refused(
        lambda: datasets.find_data_root(tmp_path / "none")
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("corra", "unknown data set 'corra', did you mean cora?"),
        ("ogbn-arxv", "did you mean ogbn-arxiv?"),
        ("synthetics:papers=1e4", "did you mean synthetic?"),
        ("zzz", "it knows synthetic, "),
        ("no/such/folder", "no/such/folder: expected a graph folder, got nothing there"),
        ("ogbn-arxiv", "got no data root; put raw/edge.csv.gz .* into ogbn_arxiv in a data root"),
        ("synthetic:papers=5", "expected papers from 100"),
    ],
)
def test_names_that_lead_nowhere(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("?", r"\?")):
        datasets.load(name, cache_dir=tmp_path)
    assert not any(tmp_path.iterdir()), "a wrong name left something in the cache"


def test_a_folder_is_a_data_set(
    tmp_path: Path, tiny_graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_graph(tiny_graph, tmp_path / "mine")
    assert datasets.load(str(tmp_path / "mine")).fingerprint == tiny_graph.fingerprint
    monkeypatch.chdir(tmp_path)
    assert datasets.load("mine").fingerprint == tiny_graph.fingerprint


def test_cora_falls_back_to_linqs(tmp_path: Path, cora_root: Path, said: list[str]) -> None:
    graph = datasets.load("cora", cora_root, tmp_path / "cache", progress=said.append)
    assert graph.name == "cora-linqs" and "cora-linqs is taken instead" in said[0]
    assert folders(tmp_path / "cache") == ["cora-linqs"]


def test_changed_sources_are_read_again(tmp_path: Path, cora_root: Path, said: list[str]) -> None:
    def load() -> Graph:
        return datasets.load("cora-linqs", cora_root, tmp_path / "cache", progress=said.append)

    before = load()
    assert load().fingerprint == before.fingerprint and len(said) == 1
    os.utime(cora_root / "cora" / "cora.cites")  # touched, but the same
    load()
    assert len(said) == 1
    (cora_root / "cora" / "cora.cites").write_text("1 2\n2 3\n4 2\n")  # of the same length
    assert load().fingerprint != before.fingerprint
    assert len(said) == 2 and "again: its sources or the format changed" in said[1]
    shutil.rmtree(cora_root)
    cora_root.mkdir()
    load()  # what is prepared is used where the sources are not
    assert len(said) == 2


def test_another_schema_is_prepared_again(tmp_path: Path, said: list[str]) -> None:
    graph = datasets.load(SMALL, cache_dir=tmp_path)
    meta = graph.folder / "meta.json"
    meta.write_text(json.dumps(graph.meta | {"schema": 0}))
    again = datasets.load(SMALL, cache_dir=tmp_path, progress=said.append)
    assert again.fingerprint == graph.fingerprint and "again" in said[0]


def test_a_damaged_prepared_graph_is_refused(tmp_path: Path) -> None:
    graph = datasets.load(SMALL, cache_dir=tmp_path)
    labels = np.load(graph.folder / "labels.npy")
    np.save(graph.folder / "labels.npy", labels[::-1].copy())
    line = refused(lambda: datasets.load(SMALL, cache_dir=tmp_path))
    assert "labels.npy: expected sha256" in line and "delete the folder and rerun" in line


def test_downloads_into_the_cache(
    tmp_path: Path, cora_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files come one by one from an address; here it is a folder of this machine."""
    entry = PUBLISHED["cora-linqs"]
    served = type(entry)(**{**vars(entry), "part_url": (cora_root / "cora").as_uri()})
    monkeypatch.setitem(PUBLISHED, "cora-linqs", served)
    graph = datasets.load("cora-linqs", cache_dir=tmp_path / "cache")
    assert graph.num_nodes == 4
    fetched = tmp_path / "cache" / "raw" / "linqs-cora" / "raw" / "cora"
    assert sorted(path.name for path in fetched.iterdir()) == ["cora.cites", "cora.content"]


def test_without_network_it_says_where_files_go(tmp_path: Path) -> None:
    target = tmp_path / "raw" / "ind.pubmed.x"
    hint = PUBLISHED["pubmed"].hint(tmp_path)
    line = refused(lambda: sources.download("http://127.0.0.1:9/ind.pubmed.x", target, hint))
    assert "put ind.pubmed.x and its companions from https://github.com/" in line
    assert line.endswith(f"into {tmp_path}/planetoid/PubMed/raw")
    assert not list(target.parent.iterdir())


NO_NETWORK = {"https_proxy": "http://127.0.0.1:9", "RINGSAGE_DATA": ""}


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("cora-linqs", "https://linqs-data.soe.ucsc.edu/public/lbc/cora.tgz"),
        ("cit-hepth", "https://snap.stanford.edu/data/cit-HepTh.txt.gz"),
    ],
)
def test_without_network_it_names_the_file_and_its_place(
    run_cli: Callable, tmp_path: Path, name: str, url: str
) -> None:
    command = ["python", "-m", "gnn_core.data.datasets", "prepare", name]
    done = run_cli([*command, "--cache-dir", tmp_path], env=NO_NETWORK)
    line = done.stderr.splitlines()[-1]
    assert done.returncode == 2
    assert line.startswith(f"error: {url}: expected to download it, got ")
    assert f"put that file into {tmp_path}/raw/" in line and "--dataset synthetic" in line


def tgz(files: dict[str, bytes]) -> bytes:
    """An archive of such files."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def test_the_archive_of_linqs_holds_what_is_published(real_data_root: Path) -> None:
    raw = real_data_root / "linqs-cora" / "raw" / "cora"
    if not raw.is_dir():
        pytest.skip("no linqs-cora in the data root")
    archive = tgz({f"cora/{name}": (raw / name).read_bytes() for name in linqs.FILES})
    assert linqs.files_in(archive) == {name: (raw / name).read_bytes() for name in linqs.FILES}


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (b"<html>moved</html>", "expected an archive with cora.content and cora.cites"),
        (tgz({"cora/cora.content": b""}), "cora/cora.cites"),
        (tgz({f"cora/{name}": b"1 2" for name in linqs.FILES}), "expected cora.content of sha256"),
    ],
    ids=["moved", "other files", "other content"],
)
def test_another_archive_is_refused(tmp_path: Path, archive: bytes, message: str) -> None:
    """Whoever put the file there is told its place, and nothing of it is used."""
    path = tmp_path / "raw" / "linqs-cora" / "raw" / "cora" / "cora.tgz"
    path.parent.mkdir(parents=True)
    path.write_bytes(archive)
    line = refused(lambda: datasets.load("cora-linqs", cache_dir=tmp_path))
    assert line.startswith(f"{path}: ") and message in line and "delete it" in line
    assert list(path.parent.iterdir()) == [path]


SNAP = b"# FromNodeId ToNodeId\n1001\t9304045\n1001\t9201001\n9304045\t9201001\n"


def test_the_file_of_snap_becomes_a_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Papers are numbered by their age: 9201001 of 1992, 9304045 of 1993, 0001001 of 2000."""
    (tmp_path / "cit-HepTh.txt.gz").write_bytes(gzip.compress(SNAP))
    url = (tmp_path / "cit-HepTh.txt.gz").as_uri()
    archive = Archive(url, 1000, lambda content: snap.ogb_files(content, 3, 3))
    served = dataclasses.replace(PUBLISHED["cit-hepth"], archive=archive)
    monkeypatch.setitem(PUBLISHED, "cit-hepth", served)
    graph = datasets.load("cit-hepth", cache_dir=tmp_path / "cache")
    assert graph.years is not None and graph.years.tolist() == [1992, 1993, 2000]
    assert np.asarray(graph.citations).tolist() == [[1, 0], [2, 0], [2, 1]]
    fetched = tmp_path / "cache" / "raw" / "cit_hepth"
    assert [path.name for path in fetched.iterdir()] == ["raw"]  # the download itself is gone


@pytest.mark.parametrize(
    "content",
    [b"moved", gzip.compress(b"a b\n"), gzip.compress(SNAP), gzip.compress(SNAP)[:-9]],
    ids=["moved", "words", "a small one", "cut"],
)
def test_another_file_than_that_of_snap_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="expected"):
        snap.ogb_files(content)


def test_a_download_that_is_too_large_is_refused(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"1234")
    url, target = (tmp_path / "large").as_uri(), tmp_path / "raw" / "large"
    sources.download(url, target, "hint", most_bytes=4)
    assert target.read_bytes() == b"1234"
    target.unlink()
    assert "got more than 3 bytes; hint" in refused(
        lambda: sources.download(url, target, "hint", most_bytes=3)
    )
    assert not list(target.parent.iterdir())


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    line = refused(lambda: datasets.load(SMALL, cache_dir=tmp_path / "file"))
    assert "give another one with --cache-dir" in line


SLOW = """
import sys, time
from pathlib import Path
from gnn_core.data import datasets, synthetic

generate = synthetic.generate

def slowly(spec, folder, **options):
    with (folder.parent / "made").open("a") as file:
        file.write("x")
    staging = folder.with_name(f"{folder.name}.tmp-{__import__('os').getpid()}")
    staging.mkdir()
    (staging / "half").write_text("")
    time.sleep(float(sys.argv[2]))
    generate(spec, folder, **options)

synthetic.generate = slowly
graph = datasets.load("synthetic:papers=400,num_features=8", cache_dir=Path(sys.argv[1]))
print(graph.fingerprint)
"""


def start(cache: Path, seconds: float) -> subprocess.Popen[str]:
    """Start a process that prepares a graph and takes so long."""
    return subprocess.Popen(
        [sys.executable, "-c", SLOW, str(cache), str(seconds)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_four_processes_prepare_it_once(tmp_path: Path) -> None:
    processes = [start(tmp_path, 0.5) for _ in range(4)]
    outputs = [process.communicate(timeout=patient(60)) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, outputs
    assert len({printed for printed, _ in outputs}) == 1
    assert (tmp_path / "graphs" / "made").read_text() == "x", "prepared more than once"


def test_after_a_kill_it_starts_cleanly_again(tmp_path: Path) -> None:
    process = start(tmp_path, 60)
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("graphs/*.tmp-*/half")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=patient(10))
    assert list(tmp_path.glob("graphs/*.tmp-*/half")), "it never began"
    others = tmp_path / "graphs" / f"another.tmp-{process.pid}"
    others.mkdir()
    graph = datasets.load(SMALL, cache_dir=tmp_path)
    assert folders(tmp_path) == sorted([graph.folder.name, "made", others.name])


def test_who_waits_says_so(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gnn_core.data.prepare._FIRST_WORD_SECONDS", 0.1)
    process = start(tmp_path, 2)
    try:
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob("graphs/*.tmp-*")) and time.monotonic() < deadline:
            time.sleep(0.02)
        datasets.load(SMALL, cache_dir=tmp_path, progress=said.append)
    finally:
        process.communicate(timeout=patient(60))
    assert len(said) == 1 and "waiting for another process" in said[0]


def test_progress_is_reported_now_and_then() -> None:
    lines: list[str] = []
    progress = reporter(lines.append, "graph", every_seconds=0)
    for done in range(0, 101, 50):
        progress("words", done, 100)
    assert lines == ["graph: words 0 %", "graph: words 50 %"]
    patient = reporter(lines.append, "graph", every_seconds=60)
    patient("words", 1, 100)
    assert len(lines) == 2


def test_the_command_line(tmp_path: Path, cora_root: Path, capsys: pytest.CaptureFixture) -> None:
    where = ["--cache-dir", str(tmp_path / "cache"), "--data-root", str(cora_root)]
    assert datasets.main(["prepare", "cora-linqs", *where]) == 0
    out, err = capsys.readouterr()
    assert out.strip() == str(tmp_path / "cache" / "graphs" / "cora-linqs")
    assert "preparing" in err
    assert datasets.main(["list", *where]) == 0
    states = {
        line[:18].strip(): line[18:36].strip() for line in capsys.readouterr().out.splitlines()
    }
    assert states["cora-linqs"] == "prepared" and states["synthetic"] == "to be generated"
    assert states["cora"] == "to be downloaded" and states["ogbn-arxiv"] == "not here"
    assert set(datasets.names()) <= set(states)
    assert datasets.main(["show", "corra", *where]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err == "error: unknown data set 'corra', did you mean cora?\n"


def test_the_command_line_teaches(run_cli: Callable[..., subprocess.CompletedProcess]) -> None:
    help_text = run_cli(["python", "-m", "gnn_core.data.datasets", "--help"])
    assert help_text.returncode == 0
    for word in ("examples:", "prepare synthetic-arxiv", "homophily=0.65", "meta.json"):
        assert word in help_text.stdout
    assert max(map(len, help_text.stdout.splitlines())) <= 100
    wrong = run_cli(["python", "-m", "gnn_core.data.datasets", "show", "synthetic:zzz=1"])
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: ")
    assert len(wrong.stderr.splitlines()) == 1
