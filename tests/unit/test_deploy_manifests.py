"""The manifests, the image and the programs of this repository say the same."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from gnn_core.deploy import overlay
from gnn_core.deploy.manifest_files import MANIFESTS, REPOSITORY, read_manifests
from gnn_core.deploy.pods import containers_of, pods_of
from gnn_core.deploy.programs import IN_IMAGE
from gnn_core.deploy.validate import check
from gnn_core.usage import UsageError

FOLDERS = sorted(file.parent for file in MANIFESTS.rglob(overlay.FILE))
VERSION = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]["version"]
LAUNCHED = ("base", "cpu", "ddp", "elastic", "gpu", "kind", "kueue", "nfs", "tf-multiworker")


def test_every_folder_is_in_order_and_none_contradicts_another() -> None:
    names = {folder.name for folder in FOLDERS}
    assert names == {*LAUNCHED, "files", "predict", "storage", "sweep", "tensorboard"}
    findings = check([read_manifests(str(folder)) for folder in FOLDERS], set())
    assert [str(finding) for finding in findings] == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_images_have_the_version_of_the_project(folder: Path) -> None:
    for one in read_manifests(str(folder)).objects:
        for container in overlay.containers_in(one):
            name, _, tag = overlay.split_image(container["image"])
            assert name in ("ringsage", "ringsage-tensorboard")
            assert tag == VERSION + ("-gpu" if folder.name == "gpu" else "")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_pods_keep_to_the_level_restricted_of_pod_security(folder: Path) -> None:
    for path, pod in (
        found for one in read_manifests(str(folder)).objects for found in pods_of(one)
    ):
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for _, container in containers_of(path, pod):
            assert container["securityContext"] == {
                "readOnlyRootFilesystem": True,
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_merging_is_what_kustomize_does(folder: Path) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl, for its kustomize")
    made = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True
    )

    def in_order(objects: list[dict[str, Any]]) -> list[str]:
        return sorted(json.dumps(one, sort_keys=True) for one in objects)

    theirs = [one for one in yaml.safe_load_all(made.stdout) if one]
    assert in_order(theirs) == in_order(list(read_manifests(str(folder)).objects))


def test_the_image_listens_where_the_manifests_ask() -> None:
    ports = {
        re.search(r"^\s*Port (\d+)", (MANIFESTS / name).read_text("utf-8"), re.M)[1]  # type: ignore
        for name in ("sshd_config", "ssh_config")
    }
    dockerfile = (MANIFESTS / "Dockerfile").read_text("utf-8")
    assert ports == {"2222"} and "EXPOSE 2222" in dockerfile and "127.0.0.1/2222" in dockerfile
    assert f"WORKDIR {IN_IMAGE}\n" in dockerfile
    # A session by ssh finds the programs where the image's PATH has them.
    session = re.search(r"SetEnv PATH=(\S+)", (MANIFESTS / "sshd_config").read_text("utf-8"))
    assert session is not None and session[1].split(":")[0] == f"{IN_IMAGE}/.venv/bin"
    assert f"--venv {IN_IMAGE}/.venv" in dockerfile
    assert f"ENV PATH={IN_IMAGE}/.venv/bin:" in dockerfile


def test_what_the_image_copies_is_let_through() -> None:
    lines = (REPOSITORY / ".dockerignore").read_text("utf-8").splitlines()
    allowed = [line[1:] for line in lines if line.startswith("!")]
    dockerfile = (MANIFESTS / "Dockerfile").read_text("utf-8")
    for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile, re.M):
        for source in line.split()[:-1]:
            assert (REPOSITORY / source).exists()
            assert source == "." or source.split("/")[0] in allowed


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_what_manifests_run_is_in_the_image(folder: Path) -> None:
    text = json.dumps(read_manifests(str(folder)).objects)
    for path in re.findall(rf"{IN_IMAGE}/([\w/.-]+\.(?:sh|py))", text):
        assert (REPOSITORY / path).is_file(), path
        assert path.endswith(".py") or os.access(REPOSITORY / path, os.X_OK), path


def test_pods_that_train_save_before_they_end() -> None:
    for folder in (MANIFESTS / "overlays").iterdir():
        for job in read_manifests(str(folder)).of_kind("MPIJob"):
            for _, pod in pods_of(job):
                hook = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
                assert hook == [f"{IN_IMAGE}/mpi-operator/save_ranks.sh"]
                script = (MANIFESTS / "save_ranks.sh").read_text("utf-8")
                seconds = re.search(r"seconds=\$\{1:-(\d+)\}", script)
                assert seconds is not None
                assert int(seconds[1]) + 10 < pod["terminationGracePeriodSeconds"]


def test_the_readme_tells_of_every_overlay() -> None:
    text = (MANIFESTS / "README.md").read_text("utf-8")
    reported = re.findall(r"^\| `([a-z-]+)` ", text, re.M)
    assert sorted(reported) == sorted(folder.name for folder in (MANIFESTS / "overlays").iterdir())
    for name in re.findall(r"mpi-operator/overlays/([a-z-]+)", text):
        assert name in reported


def test_the_sweep_has_a_plan_that_can_be_run(tmp_path: Path) -> None:
    from gnn_core.sweep.plan import read_plan

    manifests = read_manifests(str(MANIFESTS / "overlays" / "sweep"))
    file = tmp_path / "plan.yaml"
    file.write_text(manifests.of_kind("ConfigMap")[0]["data"]["plan.yaml"], encoding="utf-8")
    assert read_plan(file).records.is_relative_to("/shared")


MADE = {
    "base/kustomization.yaml": "resources: [a.yaml]",
    "base/a.yaml": "{kind: A, metadata: {name: a}, spec: {x: [1, 2], y: 3}}",
}


def _build(root: Path, kustomization: str, folder: str = "top") -> list[dict[str, Any]]:
    for name, text in {**MADE, f"{folder}/kustomization.yaml": kustomization}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return overlay.build(root / folder)


_AGAIN = "\n- {target: {name: a}, patch: '[{op: remove, path: /spec/y}]'}"


def _patch(operation: str, target: str = "{kind: A}") -> str:
    return f"resources: [../base]\npatches:\n- target: {target}\n  patch: '[{operation}]'"


@pytest.mark.parametrize(
    ("operation", "spec"),
    [
        ("{op: add, path: /spec/x/0, value: 0}", {"x": [0, 1, 2], "y": 3}),
        ("{op: add, path: /spec/x/-, value: 0}", {"x": [1, 2, 0], "y": 3}),
        ("{op: replace, path: /spec/x/1, value: 0}", {"x": [1, 0], "y": 3}),
        ("{op: remove, path: /spec/x/0}", {"x": [2], "y": 3}),
        ("{op: remove, path: /spec/y}", {"x": [1, 2]}),
        ("{op: add, path: /spec/a~1b, value: 0}", {"x": [1, 2], "y": 3, "a/b": 0}),
    ],
)
def test_operations(tmp_path: Path, operation: str, spec: dict[str, Any]) -> None:
    (one,) = _build(tmp_path, _patch(operation))
    assert one["spec"] == spec


@pytest.mark.parametrize(
    ("kustomization", "words"),
    [
        (_patch("{op: replace, path: /spec/z, value: 0}"), "replace /spec/z meets nothing"),
        (_patch("{op: remove, path: /spec/x/2}"), "meets nothing"),
        (_patch("{op: add, path: /spec/x/9, value: 0}"), "meets nothing"),
        (_patch("{op: add, path: /spec/q/z, value: 0}"), "meets nothing"),
        (_patch("{op: move, path: /spec/y}"), "patches.patch[0].op: expected 'add' or"),
        (_patch("{op: add, path: /spec/x/-1, value: 0}"), "meets nothing"),
        (_patch('{op: add, path: "", value: 0}'), "patch[0].path: expected a path"),
        (_patch("3"), "patch[0]: expected a mapping, got 3"),
        (_patch("{op: add, path: /spec/y, value: !!set {x}}"), "the tag"),
        (_patch("{op: replace, path: /metadata, value: 3}") + _AGAIN, "no resource is"),
        ("resources: [../base]\npatches: [{target: {}, patch: ''}]", "expected one or more"),
        ("resources: [../base]\npatches: [{target: {}, patch: '[1'}]", "expected YAML"),
        (_patch("{op: remove, path: /spec/y}", "{kind: B}"), "no resource is {'kind': 'B'}"),
        (_patch("{op: remove, path: /spec/y}", "{group: B}"), "target.group: unknown field"),
        ("resources: [../base]\npatches: [{target: {}, patch: '{a: 1}'}]", "list of operations"),
        ("resources: [../base]\nnamePrefix: a-", "pipe `kubectl kustomize`"),
        ("resource: [../base]", "did you mean resources?"),
        ("resources: [../bass]", "No such file"),
        ("resources: [../top]", "among its own resources"),
        ("resources: 3", "resources: expected a list, got 3"),
        ("patches: [3]\nresources: [../base]", "patches[0]: expected a mapping, got 3"),
        ("resources: [../base]\nimages: [{name: a, newTag: 3}]", "newTag: expected a text"),
        ("resources: [../base]\nlabels: [{pairs: {a: b}, includeSelectors: true}]", "includeSel"),
        ("resources: [../base/a.yaml]", "expected files below"),
        ("resources: ['https://localhost/a.yaml']", "here, got 'https://localhost/a.yaml'"),
        ("resources: [../top/../top]", "among its own resources"),
        ("", "expected one document, got 0"),
    ],
)
def test_a_folder_that_is_not_understood(tmp_path: Path, kustomization: str, words: str) -> None:
    with pytest.raises(UsageError, match=str(tmp_path)) as raised:
        _build(tmp_path, kustomization)
    assert words in str(raised.value) and "\n" not in str(raised.value)


def test_folders_that_are_resources_of_each_other(tmp_path: Path) -> None:
    for mine, yours in ("ab", "ba"):
        (tmp_path / mine).mkdir()
        (tmp_path / mine / overlay.FILE).write_text(f"resources: [../{yours}]", encoding="utf-8")
    with pytest.raises(UsageError, match="among its own resources"):
        overlay.build(tmp_path / "a")


@pytest.mark.parametrize("name", ["kustomization.yml", "Kustomization"])
def test_other_names_of_the_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.yaml").write_text(MADE["base/a.yaml"], encoding="utf-8")
    (tmp_path / name).write_text("resources: [a.yaml]", encoding="utf-8")
    assert overlay.build(tmp_path)[0]["kind"] == "A"
    (tmp_path / overlay.FILE).write_text("resources: [a.yaml]", encoding="utf-8")
    with pytest.raises(UsageError, match=f"found {overlay.FILE} and {name}"):
        overlay.build(tmp_path)


def test_a_link_to_a_file_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "a.yaml").write_text(MADE["base/a.yaml"], encoding="utf-8")
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "a.yaml").symlink_to(tmp_path / "away" / "a.yaml")
    with pytest.raises(UsageError, match="expected files below"):
        _build(tmp_path, "resources: [a.yaml]")


def test_a_folder_without_its_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected a kustomization\.yaml"):
        read_manifests(str(tmp_path))
