"""The benchmark of large graphs: what it runs, what it keeps, and what a command used."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from gnn_core.bench import large, memory_group
from gnn_core.bench.memory_group import MemoryGroup, Used, run_measured
from gnn_core.data.synthetic_spec import SyntheticSpec
from gnn_core.report.tables.benches import read_benches
from gnn_core.usage import UsageError

MIB = 1 << 20
USED = Used(2.0, 3.0, 5 << 30, 4 << 30, 6 << 30, 7_000_000_000, 8_000_000_000, 9)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Run nothing: (command, limit) of each stage that would have been."""
    commands: list[tuple[str, int]] = []

    def run(command: Sequence[str], log: Path, limit_bytes: int) -> Used:
        commands.append((" ".join(command), limit_bytes))
        if "datasets" in commands[-1][0]:
            graph = log.parents[1] / "cache" / "graphs" / "g"
            graph.mkdir(parents=True)
            (graph / "meta.json").touch()
        return USED

    monkeypatch.setattr(large, "run_measured", run)
    monkeypatch.setattr(large, "read_meta", lambda folder: {"num_edges": 8_000_000})
    monkeypatch.setattr(large, "_rates", lambda stage, folder: {"targets_per_second": 1500.0})
    return commands


def test_each_stage_is_run_once(
    tmp_path: Path, ran: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--papers", "2e4,3e4", "--folder", str(tmp_path / "work"), "--memory", "1.5"]
    assert large.main([*flags, "--stages", "partition,prepare"]) == 0
    assert [limit for _, limit in ran] == [1536 * MIB] * 4
    assert "datasets prepare synthetic:papers=20000," in ran[0][0]
    assert "gnn_core.data.partition synthetic:papers=20000," in ran[1][0]
    assert "--parts 2 --method refine" in ran[1][0]
    assert (tmp_path / "work" / "20000").exists(), "its graph is still needed"
    json_file = tmp_path / "large.json"
    assert large.main([*flags, "--json", str(json_file)]) == 0
    assert len(ran) == 8, "the first four are not done again"
    assert not (tmp_path / "work" / "20000").exists(), "a graph is removed in the end"
    train, evaluate = ran[4][0], ran[5][0]
    assert "horovodrun -np 2" in train and "--feature-store disk" in train
    assert " --eval-nodes 1024" in train, "its evaluation is another stage"
    alike = train.replace("/train --", "/evaluate --").replace("--eval-nodes 1024", "--resume")
    assert alike == evaluate
    assert "--fanouts 15,10,5" in train
    (bench,), problems = read_benches(json_file)
    assert not problems
    assert [row[:2] for row in bench.rows[:4]] == [[20000, stage] for stage in large.STAGES]
    assert bench.rows[0][2:] == [2.0, 3.0, 5.0, 4.0, 6.0, 7.0, 8.0, 2.0, None, None]
    assert bench.rows[2][-2] == 1500.0
    assert "| 20000 | prepare" in " ".join(capsys.readouterr().out.split())


def test_a_log_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(large, "_SECONDS_BETWEEN_LINES", 0.01)
    log, told = tmp_path / "train.log", threading.Event()
    monkeypatch.setattr(large, "_say", lambda line: (print(line), told.set()))
    with large._followed(log):
        for step in (1, 2):
            log.write_text(f"ranks 2\nstep {step}/9\n")
            assert told.wait(60)
            told.clear()
    assert capsys.readouterr().out == "  step 1/9\n  step 2/9\n"


def test_stages_measured_otherwise_are_not_mixed(
    tmp_path: Path, ran: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--papers", "2e4", "--stages", "prepare", "--folder", str(tmp_path)]
    assert large.main(flags) == 0
    assert large.main([*flags, "--ranks", "4"]) == 2
    assert "expected stages measured with these flags" in capsys.readouterr().err
    (tmp_path / "stages.json").write_text("[]")
    assert large.main(flags) == 2
    assert "expected the stages of an earlier call" in capsys.readouterr().err
    assert len(ran) == 1


def test_what_was_done_before_a_failure_is_kept(
    tmp_path: Path,
    ran: list[tuple[str, int]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = large.run_measured

    def fail(command: Sequence[str], log: Path, limit_bytes: int) -> Used:
        if "partition" in command[2]:
            raise UsageError("no room")
        return run(command, log, limit_bytes)

    flags = ["--papers", "2e4", "--stages", "prepare,partition", "--folder", str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr(large, "run_measured", fail)
        assert large.main(flags) == 2
    assert "20,000 papers, partition: no room" in capsys.readouterr().err
    assert large.main(flags) == 0
    assert ["prepare" in command for command, _ in ran] == [True, False]


@pytest.mark.parametrize("papers", [20_000, 100_000_000])
def test_the_targets_are_those_asked_for(papers: int) -> None:
    spec = SyntheticSpec.parse(large.Plan(2, 16, 10_000, "").dataset(papers))
    assert spec.papers * spec.labelled * 0.63 == pytest.approx(10_000, rel=1e-3)
    assert (spec.num_features, spec.feature_dtype) == (64, "float16")


def test_what_a_command_used_is_measured(tmp_path: Path) -> None:
    size = 100 * MIB
    script = f"import time; x = b'1' * {size}; time.sleep(1); open('/dev/null', 'wb').write(x)"
    used = run_measured([sys.executable, "-c", script], tmp_path / "log")
    assert used.rss_bytes > size
    assert used.seconds >= 1 and used.cpu_seconds > 0
    assert used.group_peak_bytes is None
    with pytest.raises(UsageError, match="exit code 3; see .*log"):
        run_measured([sys.executable, "-c", "raise SystemExit(3)"], tmp_path / "log")


def test_a_limit_is_kept(tmp_path: Path) -> None:
    """What is beyond it ends the command, and what is within is told."""
    try:
        with MemoryGroup(64 * MIB):
            pass
    except UsageError as error:
        pytest.skip(str(error))
    script = "import sys, time; x = b'1' * (int(sys.argv[1]) << 20); time.sleep(1)"
    command = [sys.executable, "-c", script]
    used = run_measured([*command, "40"], tmp_path / "log", 128 * MIB)
    assert used.anonymous_bytes is not None and 40 * MIB < used.anonymous_bytes < 128 * MIB
    assert used.group_peak_bytes is None or 40 * MIB < used.group_peak_bytes <= 128 * MIB
    with pytest.raises(UsageError, match="at most 128 MiB of memory, got .*; raise it; see"):
        run_measured([*command, "400"], tmp_path / "log", 128 * MIB)
    assert not list(MemoryGroup(1).folder.parent.glob(f"{MemoryGroup(1).folder.name}*"))


def test_no_group_can_be_made_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory_group, "_parent", lambda: (tmp_path / "none", True))
    with pytest.raises(UsageError, match="--memory: expected to make a memory control group"):
        with MemoryGroup(MIB):
            pass


def test_wrong_flags(capsys: pytest.CaptureFixture[str]) -> None:
    for flags, told in (
        (["--papers", "2e4,10"], "at least 1000"),
        (["--papers", "many"], "expected a number"),
        (["--stages", "fly"], "expected some of prepare"),
        (["--memory", "-1"], "--memory"),
    ):
        assert large.main(flags) == 2
        assert told in capsys.readouterr().err


def test_the_record_is_json(tmp_path: Path, ran: list[tuple[str, int]]) -> None:
    file = tmp_path / "r.json"
    flags = ["--papers", "2e4", "--stages", "train", "--folder", str(tmp_path / "w")]
    assert large.main([*flags, "--json", str(file)]) == 0
    assert json.loads(file.read_text())["stages"][0]["stage"] == "train"
