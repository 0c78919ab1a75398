"""Tables inside a Markdown file: found by their markers, made from their own records."""

from __future__ import annotations

from pathlib import Path

import pytest

from gnn_core.measure.records import write_record
from gnn_core.report.analysis import main
from tests.unit import test_benches
from tests.unit.made_records import run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for record in (run(), run("horovod", 2, 4.0), run("horovod", 4, 4.0, 0.5)):
        write_record(record, tmp_path / "results" / "runs")
    return tmp_path / "results"


DOCUMENT = """# Title

<!-- figures:speed begin -->
old
<!-- figures:speed end -->

between

<!-- figures:accuracy begin -->
<!-- figures:accuracy end -->
the end
"""


def test_a_readme_is_renewed_and_its_staleness_found(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(DOCUMENT)
    check = [str(folder), "--readme", str(readme), "--check"]
    assert main(check) == 1
    assert "stale" in capsys.readouterr().err
    assert readme.read_text() == DOCUMENT
    assert main(check[:-1]) == 0
    text = readme.read_text()
    assert "old" not in text and "| speed-up |" in text and "\nbetween\n" in text
    assert text.startswith("# Title\n") and text.endswith(
        "<!-- figures:accuracy end -->\nthe end\n"
    )
    assert "- from 3 run records in `results`; commit c0ffeec0ff\n" in text
    assert main(check) == 0
    assert main(check[:-1]) == 0 and readme.read_text() == text
    write_record(run("horovod", 2, 2.0), folder)
    assert main(check) == 1


def test_several_documents_are_renewed_at_once(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / "README.md", tmp_path / "docs" / "results.md"]
    files[1].parent.mkdir()
    files[0].write_text("<!-- figures:speed results begin -->\n<!-- figures:speed end -->\n")
    files[1].write_text("<!-- figures:memory ../results begin -->\n<!-- figures:memory end -->\n")
    both = ["--update", *map(str, files)]
    assert main([*both, "--check"]) == 1
    assert capsys.readouterr().err.count("is stale at line 1") == 2
    assert main(both) == 0
    assert "| speed-up |" in files[0].read_text() and "| sum of PSS |" in files[1].read_text()
    files[1].write_text("no markers")
    before = files[0].read_text().replace("| speed-up |", "| spoilt |")
    files[0].write_text(before)
    assert main(both) == 2
    assert files[0].read_text() == before  # none is written where one is wrong
    assert main(["--readme", str(files[0]), "--readme", str(files[0]), "--check"]) == 1


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("no markers", "found none"),
        ("<!-- figures:speed begin -->\n", "never ended"),
        ("x\n<!-- figures:speed end -->\n", ":2: "),
        ("<!-- figures:speed begin -->\n<!-- figures:accuracy end -->\n", "no partner"),
        ("<!-- figures:sped begin -->\n<!-- figures:sped end -->\n", "got sped"),
        ("<!-- figures:speed a begin -->\n<!-- figures:speed b end -->\n", ":2: "),
        ("<!-- figures:speed -->\n", "expected <!-- figures:NAME [FOLDER] begin -->"),
        ("<!--figures:speed begin-->\n", "expected <!-- figures:NAME [FOLDER] begin -->"),
    ],
)
def test_wrong_markers_are_a_users_error(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, named: str
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(text)
    assert main([str(folder), "--readme", str(readme)]) == 2
    error = capsys.readouterr().err
    assert named in error and error.count("\n") == 1
    assert readme.read_text() == text


def sections(*markers: str) -> str:
    """Return a document with one empty section per marker, each begun at line 1, 3, 5 ..."""
    return "".join(
        f"<!-- figures:{marker} begin -->\n<!-- figures:{marker.split()[0]} end -->\n"
        for marker in markers
    )


def test_markers_name_their_own_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Paths on the command line are not needed, and stand in for no folder that is named."""
    home = tmp_path / "docs"
    write_record(run(accuracy=0.5), home / "ref" / "one")
    for accuracy in (0.6, 0.7):
        write_record(run(accuracy=accuracy, commit="abcd" * 10), tmp_path / "my records")
    readme = home / "README.md"
    readme.write_text(sections("accuracy ref/one", "accuracy ../my records"))
    assert main(["--readme", str(readme)]) == 0
    first, second = readme.read_text().split("<!-- figures:accuracy end -->\n")[:2]
    assert "- from 1 run record in `ref/one`; commit c0ffeec0ff\n" in first
    assert "50.00" in first and "65.00" not in first
    assert "- from 2 run records in `../my records`; commit abcdabcdab\n" in second
    assert "65.00" in second and "50.00" not in second
    assert str(tmp_path) not in readme.read_text()
    assert main(["--readme", str(readme), "--check"]) == 0
    assert capsys.readouterr().err == ""


def test_an_end_marker_may_repeat_the_folder(folder: Path, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(
        "<!-- figures:speed results begin -->\n<!-- figures:speed results end -->\nafter\n"
    )
    assert main(["--readme", str(readme)]) == 0
    assert readme.read_text().endswith("<!-- figures:speed results end -->\nafter\n")
    assert "| speed-up |" in readme.read_text()


def test_the_check_says_which_section_is_stale(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_record(run(), tmp_path / "other")
    readme = tmp_path / "README.md"
    readme.write_text(sections("speed other", "memory results", "curves results"))
    assert main(["--readme", str(readme)]) == 0
    write_record(run("horovod", 2, 2.0), tmp_path / "other")
    text = readme.read_text()
    capsys.readouterr()
    assert main(["--readme", str(readme), "--check"]) == 1
    error = capsys.readouterr().err
    assert "stale at line 1 (speed other):" in error
    assert "memory" not in error and "curves" not in error
    assert readme.read_text() == text


@pytest.mark.parametrize("kind", ["accuracy", "speed", "curves", "memory", "benches"])
def test_a_missing_or_an_empty_folder_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# Title\n" + sections(f"{kind} nowhere"))
    before = readme.read_text()
    for named in ("there is no", "found none that can be used"):
        assert main(["--readme", str(readme)]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {readme}:2 (figures:{kind}): expected")
        assert named in error and "nowhere" in error and error.count("\n") == 1
        assert readme.read_text() == before
        (tmp_path / "nowhere").mkdir(exist_ok=True)


def test_lines_that_are_not_used_are_named_once(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "broken.jsonl").write_text("{\n")
    readme = tmp_path / "README.md"
    readme.write_text(sections("speed results", "accuracy results"))
    assert main(["--readme", str(readme)]) == 0
    error = capsys.readouterr().err
    assert error.startswith("not used: ") and error.count("\n") == 1


def test_each_benchmark_is_a_table_with_its_commit(tmp_path: Path) -> None:
    test_benches.write(tmp_path / "b", "a.json")
    test_benches.write(tmp_path / "b", "b.json", benchmark="step", commit=None, dirty=None)
    readme = tmp_path / "README.md"
    readme.write_text(sections("benches b"))
    assert main(["--readme", str(readme)]) == 0
    text = readme.read_text()
    assert text.index("\nsampler:\n\n| what") < text.index("\nstep:\n\n| what")
    assert "GiB\n- commit c0ffeec0ff\n" in text and "GiB\n- commit unknown\n" in text
    assert "\n\nFrom 2 benchmark files in `b`; commits c0ffeec0ff, unknown.\n\n<!--" in text
