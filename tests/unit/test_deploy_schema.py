"""Fields are compared with Kubernetes' own schema where it is installed, and that is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gnn_core.deploy import kubernetes_schema
from gnn_core.deploy.__main__ import main
from gnn_core.deploy.yaml_objects import parse
from tests.unit.made_manifests import (
    DEPLOYMENT,
    JOB,
    LAUNCHER,
    SERVICE,
    WORKER,
    base,
    reported,
    spoil,
)

needs_schema = pytest.mark.needs_kubernetes_schema


@needs_schema
@pytest.mark.parametrize(
    ("text", "old", "new", "path", "words"),
    [
        (JOB, "backoffLimit", "backofLimit", "spec.backofLimit", "did you mean backoffLimit?"),
        (JOB, "volumeMounts", "volumeMount", "volumeMount", "did you mean volumeMounts?"),
        (
            JOB,
            "      containers:",
            "      tolertions: []\n      containers:",
            "tolertions",
            "tolerat",
        ),
        (
            JOB,
            "      containers:",
            "      hostUsers: 1\n      containers:",
            "hostUsers",
            "true or fal",
        ),
        (
            JOB,
            "        env:",
            "        stdin: 'yes'\n        env:",
            "stdin",
            "expected true or false",
        ),
        (JOB, "        env:", "        tty: [1]\n        env:", "tty", "got [1]"),
        (DEPLOYMENT, "spec:\n  sel", "spec:\n  paused: 3\n  sel", "spec.paused", "got 3"),
        (SERVICE, "{port: 80", "{appProtocol: 3, port: 80", "ports[0].appProtocol", "numbers and"),
        (JOB, "emptyDir: {}", "projected: {sources: [{secret: {nam: s}}]}", "nam", "did you mean"),
        (JOB, "kind: Job", "kind: Jobs", "kind", "did you mean Job?"),
    ],
)
def test_a_field_that_kubernetes_does_not_have(
    text: str, old: str, new: str, path: str, words: str
) -> None:
    assert reported(parse(text, "f")) == [] and old in text
    lines = reported(parse(text.replace(old, new, 1), "f"))
    assert any(path in line and words in line for line in lines), lines


@needs_schema
@pytest.mark.parametrize("pod", [LAUNCHER, WORKER])
def test_the_pods_of_an_mpijob_are_compared(pod: str) -> None:
    objects = base()
    spoil(objects, "MPIJob", f"{pod}.enableServiceLink", True)
    (line,) = reported(objects)
    assert f"{pod}.enableServiceLink: unknown field, did you mean enableServiceLinks?" in line


@needs_schema
def test_an_mpijob_has_the_pods_that_its_operator_was_built_with() -> None:
    newer = "spec:\n      schedulingGroup: {podGroupName: g}\n      restartPolicy"
    assert reported(parse(JOB.replace("spec:\n      restartPolicy", newer), "f")) == []
    objects = base()
    spoil(objects, "MPIJob", f"{WORKER}.schedulingGroup", {"podGroupName": "g"})
    (line,) = reported(objects)
    assert f"{WORKER}.schedulingGroup: unknown field" in line


@needs_schema
def test_other_kinds_of_kubernetes_are_compared() -> None:
    text = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed}
spec: {podSelector: {}, policyTypes: [Ingress]}
"""
    assert reported(parse(text, "f")) == []
    (line,) = reported(parse(text.replace("policyTypes", "policyType"), "f"))
    assert "NetworkPolicy/closed: spec.policyType: unknown field, did you mean policyTypes?" in line


def test_that_nothing_was_compared_is_said_and_the_rules_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kubernetes_schema, "_PACKAGE", "no_such_package")
    for cache in (
        kubernetes_schema._definitions,
        kubernetes_schema._kinds,
        kubernetes_schema._validator,
    ):
        cache.cache_clear()
    file = tmp_path / "a.yaml"
    file.write_text(JOB, encoding="utf-8")
    try:
        assert main(["validate", str(file)]) == 0
        assert capsys.readouterr().err == f"note: {kubernetes_schema.NOT_CHECKED}\n"
        file.write_text(JOB.replace("[1, 2]", "[2, 1]"), encoding="utf-8")
        assert main(["validate", str(file)]) == 2
        assert "in order, each once: [1, 2]" in capsys.readouterr().err.splitlines()[1]
        for junk in ("env: 3", "lifecycle: {preStop: 3}", "envFrom: 3"):
            wrong: Any = JOB.replace("        env:", f"        {junk}\n        was:")
            file.write_text(wrong, encoding="utf-8")
            assert main(["validate", str(file)]) == 2
            lines = capsys.readouterr().err.splitlines()[1:]
            assert lines and all(line.startswith("error: ") for line in lines)
    finally:
        for cache in (
            kubernetes_schema._definitions,
            kubernetes_schema._kinds,
            kubernetes_schema._validator,
        ):
            cache.cache_clear()
