"""A manifest that would fail in a cluster is refused without one, in a line that says where."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gnn_core.deploy.__main__ import main
from gnn_core.deploy.manifest_files import MANIFESTS, Manifests, read_manifests
from gnn_core.deploy.quantity import is_quantity, number_of
from gnn_core.deploy.validate import check
from gnn_core.deploy.yaml_objects import parse
from gnn_core.usage import UsageError
from tests.unit.made_manifests import LAUNCHER, SERVICE, WORKER, base, objects_of, reported, spoil

MAIN, POD = f"{LAUNCHER}.containers.0", f"{WORKER}.containers.0"
PROGRAM, FLAGS = f"{MAIN}.command.4", f"{MAIN}.args"


def test_the_base_is_in_order() -> None:
    assert reported(base()) == []


# (kind, where, what instead (None: nothing), path that is named, words of the message)
SPOILT: list[tuple[str, str, Any, str, str]] = [
    # What the API server takes and the operator then refuses: no pod would come.
    ("MPIJob", "spec.mpiReplicaSpecs.Launcher", None, "Launcher", "it is missing"),
    ("MPIJob", "spec.mpiReplicaSpecs.Launcher.replicas", 2, "Launcher.replicas", "expected 1"),
    ("MPIJob", "spec.runPolicy.cleanPodPolicy", "Sometimes", "cleanPodPolicy", "'Running'"),
    ("MPIJob", "spec.mpiReplicaSpecs.Worker.restartPolicy", "Maybe", "restartPolicy", "'Never'"),
    ("MPIJob", "spec.mpiReplicaSpecs.Worker.replicas", 0, "Worker.replicas", "2^31, got 0"),
    ("MPIJob", "spec.slotsPerWorker", 0, "slotsPerWorker", "1 or more, below 2^31, got 0"),
    ("MPIJob", "spec.slotsPerWorker", True, "slotsPerWorker", "got True"),
    ("MPIJob", "metadata.name", "Upper", "metadata.name", "expected a name"),
    ("MPIJob", "metadata.name", "4-workers", "metadata.name", "after a letter"),
    ("MPIJob", "metadata.name", "a" * 55, "metadata.name", "'" + "a" * 55 + "-worker-1'"),
    ("MPIJob", "spec.runPolicy.managedBy", "me", "managedBy", "'kubeflow.org/mpi-operator' or"),
    ("PersistentVolumeClaim", "metadata.name", "a..b", "metadata.name", "expected a name"),
    (
        "PersistentVolumeClaim",
        "metadata.namespace",
        "mine",
        "metadata.namespace",
        "expected one namespace, got (the current one), mine",
    ),
    ("MPIJob", f"{POD}.name", "w" * 64, "containers[0].name", "at most 63, got 'www"),
    ("MPIJob", f"{WORKER}.volumes.0.name", "w" * 64, "volumes[0].name", "at most 63, got 'www"),
    ("MPIJob", f"{POD}.ports.0.name", "ssh-of-the-worker", "ports[0].name", "at most 15, got"),
    ("MPIJob", f"{MAIN}.env.0.name", "OMP=THREADS", "env[0].name", "the name of a variable"),
    ("MPIJob", "spec.mpiReplicaSpecs.Worker.replicas", 2**31, "Worker.replicas", "below 2^31"),
    # Slips of the pen.
    ("MPIJob", "spec.slotsPerWorkers", 2, "slotsPerWorkers", "did you mean slotsPerWorker?"),
    ("MPIJob", "kind", "MPIjob", "kind", "did you mean MPIJob?"),
    ("MPIJob", "apiVersion", "kubeflow.org/v1", "apiVersion", "'kubeflow.org/v2beta1'"),
    ("MPIJob", f"{MAIN}.env.0.value", 1, "env[0].value", "numbers and true in quotes"),
    ("MPIJob", f"{POD}.volumeMounts.0.name", "shred", "volumeMounts", "did you mean shared?"),
    ("MPIJob", f"{POD}.volumeMounts.1.mountPath", "/shared", "mountPath", "stands twice"),
    ("MPIJob", f"{MAIN}.env.1.name", "OMP_NUM_THREADS", "env[1].name", "stands twice"),
    ("PersistentVolumeClaim", "spec.resources", None, "spec.resources", "missing"),
    # Two places that do not agree.
    ("MPIJob", f"{POD}.ports.0.containerPort", 22, "ports", "expected 2222, sshd's, got 22"),
    ("MPIJob", f"{POD}.readinessProbe.tcpSocket.port", 22, "readinessProbe", "2222"),
    ("MPIJob", f"{POD}.readinessProbe", None, "readinessProbe", "before sshd answers"),
    ("MPIJob", f"{POD}.command.1", "-e", "command", "expected /usr/sbin/sshd -De -f"),
    ("MPIJob", f"{POD}.command.4", "-p", "command", "got -p"),
    ("MPIJob", "spec.sshAuthMountPath", None, "sshAuthMountPath", "got /root/.ssh"),
    ("MPIJob", f"{MAIN}.command", ["mpirun", "-np", "3", "python"], "command", "-np: expected 4"),
    (
        "MPIJob",
        f"{MAIN}.command",
        ["horovodrun", "-np", "4", "python", "x.py"],
        "command",
        "all ranks in the launcher's pod; use mpirun",
    ),
    ("MPIJob", f"{MAIN}.env.0.value", "2", "limits.cpu", "2 slots x 2 threads, got 2"),
    ("MPIJob", f"{POD}.resources.limits.cpu", 3, "requests.cpu", "expected the limit, 3, got 2"),
    ("MPIJob", f"{POD}.resources.limits.memory", None, "limits.memory", "got none"),
    ("MPIJob", f"{WORKER}.volumes.1.emptyDir.sizeLimit", "4Gi", "sizeLimit", "less than the"),
    ("MPIJob", f"{WORKER}.volumes.1.emptyDir.sizeLimit", None, "sizeLimit", "got none"),
    (
        "MPIJob",
        f"{LAUNCHER}.initContainers.0.command.4",
        "cora",
        "initContainers[0].command",
        "expected prepare synthetic --cache-dir=/shared/cache",
    ),
    # Who runs, and out of what.
    ("MPIJob", f"{WORKER}.securityContext.runAsUser", 0, "securityContext", "runAsUser 0"),
    ("MPIJob", f"{LAUNCHER}.securityContext", None, "securityContext", "runAsNonRoot None"),
    ("MPIJob", f"{POD}.securityContext.runAsNonRoot", False, "securityContext", "NonRoot False"),
    ("MPIJob", f"{WORKER}.securityContext.runAsUser", 1001, "runAsUser", "expected 1000, whom"),
    ("MPIJob", f"{POD}.image", "ringsage", "image", "with a tag"),
    ("MPIJob", f"{POD}.image", "me/Ringsage:1", "image", "small letters"),
    ("MPIJob", f"{POD}.image", "ringsage:1 ", "image", "got 'ringsage:1 '"),
    ("MPIJob", f"{POD}.image", "ringsage@sha256:12", "image", "expected repository:tag"),
    ("MPIJob", f"{POD}.image", "reg:5000/ringsage", "image", "with a tag"),
    ("MPIJob", f"{POD}.image", "ringsage:latest", "image", "not latest"),
    # What is not there.
    (
        "MPIJob",
        f"{WORKER}.volumes.0.persistentVolumeClaim.claimName",
        "rinsage",
        "claimName",
        "did you mean ringsage?",
    ),
    (
        "MPIJob",
        f"{WORKER}.volumes.0.persistentVolumeClaim.claimName",
        "mine",
        "claimName",
        "--external-pvc mine",
    ),
    ("MPIJob", f"{WORKER}.volumes.0.emptyDir", {}, "volumes[0]", "got persistentVolumeClaim and"),
    (
        "MPIJob",
        f"{WORKER}.volumes.0",
        {"name": "shared", "configMap": {"name": "c"}},
        "configMap",
        "no ConfigMap 'c'",
    ),
    ("MPIJob", PROGRAM, "/opt/ringsage/horovod_gnn/training.py", "command", "found none"),
    ("MPIJob", PROGRAM, "/home/me/train.py", "command", "found none"),
    ("MPIJob", f"{MAIN}.command.0", "mpirum", "command", "did you mean mpirun?"),
    ("MPIJob", f"{MAIN}.command.1", "-y", "command", "unknown option -y"),
    ("MPIJob", f"{MAIN}.command.2", "OMP_THREADS", "command", "has no such variable"),
    ("MPIJob", f"{LAUNCHER}.initContainers.0.command.4", "corra", "command", "did you mean cora?"),
    ("MPIJob", f"{LAUNCHER}.initContainers.0.args.1", "--cash", "command", "no flag --cash"),
    # What the trainer refuses.
    ("MPIJob", f"{FLAGS}.7", "--epoch=3", "args", "unknown flag --epoch, did you mean --epochs?"),
    ("MPIJob", f"{FLAGS}.7", "--strategy=mirrored", "args", "it is one of tf_mirrored/train.py"),
    ("MPIJob", f"{FLAGS}.7", "--world-size=3", "args", "meant for 3 ranks but 4 started"),
    ("MPIJob", f"{FLAGS}.7", "--global-batch-size=2", "args", "--global-batch-size"),
    ("MPIJob", f"{FLAGS}.7", "--config=run.yaml", "args", "not in the image"),
    ("MPIJob", f"{FLAGS}.0", "--dataset=corra", "args", "did you mean cora?"),
    ("MPIJob", f"{FLAGS}.1", "--threads=$(THREADS)", "command", "$(THREADS): no variable"),
    ("MPIJob", PROGRAM, "/opt/ringsage/tf_mirrored/train.py", "args", "--strategy multiworker"),
    ("MPIJob", f"{FLAGS}.0", "--dataset=/mine", "args", "--dataset: expected a path in /shared"),
    (
        "MPIJob",
        "spec.runLauncherAsWorker",
        True,
        "Launcher.template.spec.containers[0].resources",
        "expected at least 2, 2 slots x 1 threads, got 1",
    ),
    # What would be lost with the pods, or refused by the second launcher.
    ("MPIJob", f"{FLAGS}.3", "--records=results/runs", "args", "--records: expected a path in /"),
    ("MPIJob", f"{FLAGS}.3", "--records=/sharedness", "args", "--records: expected a path in /"),
    ("MPIJob", f"{FLAGS}.6", None, "args", "without --resume"),
    ("MPIJob", f"{POD}.volumeMounts.1", None, "volumeMounts", "at /dev/shm"),
    ("MPIJob", f"{POD}.volumeMounts.2", None, "volumeMounts", "mount an emptyDir at /tmp"),
    ("MPIJob", f"{POD}.volumeMounts.3", None, "volumeMounts", "at /home/mpiuser/.cache"),
    # GPUs.
    ("MPIJob", f"{FLAGS}.7", "--device=cuda", "nvidia.com/gpu", "expected 2, got none"),
    ("MPIJob", f"{POD}.resources.limits.nvidia.com/gpu", 1, "gpu", "one for each slot, got 1"),
]


@pytest.mark.parametrize(("kind", "where", "value", "path", "words"), SPOILT)
def test_what_would_fail_is_reported(
    kind: str, where: str, value: Any, path: str, words: str
) -> None:
    objects = base()
    where = where.replace("nvidia.com/gpu", "GPU")
    spoil(objects, kind, where, value)
    if where.endswith("GPU"):
        limits = objects[1]["spec"]["mpiReplicaSpecs"]["Worker"]["template"]["spec"]
        limits = limits["containers"][0]["resources"]["limits"]
        limits["nvidia.com/gpu"] = limits.pop("GPU")
    lines = reported(objects)
    assert any(path in line and words in line for line in lines), lines
    assert all(line.startswith("f: ") and "\n" not in line for line in lines)


@pytest.mark.parametrize(
    "image",
    ["r:1", "reg:5000/me/r_b:v1.0-a", "r@sha256:" + "0a" * 32, "r:latest@sha256:" + "f" * 64],
)
def test_images_that_may_be(image: str) -> None:
    objects = base()
    spoil(objects, "MPIJob", f"{POD}.image", image)
    assert reported(objects) == []


@pytest.mark.parametrize(("num_ranks", "told_of"), [("4", ["-np: expected 6"]), ("6", [])])
def test_a_launcher_that_works_too_has_ranks_of_its_own(num_ranks: str, told_of: list[str]) -> None:
    objects = base()
    roles = objects[1]["spec"]["mpiReplicaSpecs"]
    launcher, worker = (roles[role]["template"]["spec"]["containers"][0] for role in roles)
    launcher["resources"] = worker["resources"]
    launcher["command"][1:1] = ["-np", num_ranks]
    spoil(objects, "MPIJob", "spec.runLauncherAsWorker", True)
    lines = reported(objects)
    assert len(lines) == len(told_of) and all(map(str.__contains__, lines, told_of))


def test_a_sweep_without_the_volume_of_its_plan() -> None:
    objects = objects_of(MANIFESTS / "overlays" / "sweep")
    spoil(objects, "Job", "spec.template.spec.volumes.1.name", "plans")
    (line,) = reported(objects)
    assert "no volume has the name 'plan', did you mean plans?" in line


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("datasets: [synthetic]", "datasets: [corra]", "plan.yaml: datasets: unknown data set"),
        ("repeats: 3", "repeat: 3", "unknown key 'repeat', did you mean repeats?"),
        ("repeats: 3", "repeats: x", "repeats: expected a whole number from 1, got 'x'"),
        ("[1, 2, 4]", "[1, 2", "plan.yaml: "),
        ("/shared/sweeps/plan", "/tmp/plan", "records: expected a folder in /shared, got /tmp/p"),
        ("    records: /shared/sweeps/plan\n", "", "got results/sweeps/plan"),
        ("  plan.yaml: |", "  plan.yml: |", "its ConfigMap has no plan.yaml"),
    ],
)
def test_a_sweep_with_a_plan_that_cannot_be_run(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    sweep = MANIFESTS / "overlays" / "sweep"
    files = [sweep / "plan.yaml", sweep / "job.yaml", MANIFESTS / "storage" / "claim.yaml"]
    text = "\n---\n".join(file.read_text("utf-8") for file in files)
    assert reported(parse(text, "f")) == [] and old in text
    (line,) = reported(parse(text.replace(old, new), "f"))
    assert line.startswith("f: Job/ringsage-sweep: spec.template.spec.containers[0].command: /etc/")
    assert words in line and str(tmp_path.parent) not in line


OVERLAYS = [
    folder
    for folder in sorted((MANIFESTS / "overlays").iterdir())
    if any(one["kind"] == "MPIJob" for one in objects_of(folder))
]


@pytest.mark.parametrize("folder", OVERLAYS, ids=lambda folder: folder.name)
@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        ("spec.mpiReplicaSpecs.Launcher", None, "mpiReplicaSpecs.Launcher: expected it to be"),
        ("spec.mpiReplicaSpecs.Launcher.replicas", 2, "expected 1, got 2: set it to 1"),
        ("spec.runPolicy.cleanPodPolicy", "Sometimes", "cleanPodPolicy: expected 'None' or"),
        ("spec.mpiReplicaSpecs.Worker.restartPolicy", "Maybe", "restartPolicy: expected 'Never'"),
        ("spec.mpiReplicaSpecs.Worker.replicas", 0, "Worker.replicas: expected a whole number"),
        ("spec.slotsPerWorker", 0, "slotsPerWorker: expected a whole number"),
        (f"{POD}.image", "ringsage", "image: expected repository:tag"),
        (f"{FLAGS}.0", "--dataset=corra", "args: --dataset: unknown data set 'corra'"),
        ("metadata.name", "a" * 60, "metadata.name: expected a-z"),
    ],
)
def test_a_slip_in_any_overlay_is_one_line(
    folder: Path, where: str, value: Any, words: str
) -> None:
    objects = objects_of(folder)
    spoil(objects, "MPIJob", where, value)
    (line,) = reported(objects)
    assert words in line


def test_everything_is_reported_at_once() -> None:
    objects = base()
    spoil(objects, "MPIJob", "spec.slotPerWorker", 2)
    spoil(objects, "MPIJob", f"{POD}.image", "ringsage")
    spoil(objects, "MPIJob", f"{FLAGS}.7", "--epoch=3")
    spoil(objects, "PersistentVolumeClaim", "spec.accessModes.0", "Both")
    assert len(reported(objects)) == 4


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict | list):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _places(one, (*path, key))


@pytest.mark.parametrize(
    "junk",
    [
        *(None, "x", -1, [{}], {"a": []}),
        *(pytest.param(one, marks=pytest.mark.long) for one in ([], {}, 0, 2.5, True)),
    ],
)
def test_junk_anywhere_is_no_crash(junk: Any) -> None:
    whole = base()
    places = [path for path in _places(whole) if len(path) > 1]
    assert len(places) > 150
    for *above, last in places:
        objects = copy.deepcopy(whole)
        place: Any = objects
        for part in above:
            place = place[part]
        place[last] = junk
        reported(objects)


def test_a_claim_may_be_in_the_cluster() -> None:
    job = base()[1:]
    assert any("--external-pvc ringsage" in line for line in reported(job))
    assert reported(job, there=["PersistentVolumeClaim/ringsage"]) == []


def test_the_same_object_twice() -> None:
    assert any("stands twice" in line for line in reported([*base(), base()[0]]))


def test_a_broken_object_and_a_sound_one_of_its_name() -> None:
    broken = {**base()[1], "spec": {"slotsPerWorker": 1, "mpiReplicaSpecs": 3}}
    for objects in ([*base(), broken], [broken, *base()]):
        lines = reported(objects)
        assert "stands twice" in lines[0]
        assert "mpiReplicaSpecs: expected a mapping, got 3" in lines[1] and len(lines) == 2


def test_sets_that_contradict_each_other() -> None:
    other = base()
    spoil(other, "PersistentVolumeClaim", "spec.accessModes", ["ReadWriteOnce"])
    spoil(other, "MPIJob", "metadata.name", "another")
    sets = [Manifests("one", base()), Manifests("two", other)]
    (line,) = map(str, check(sets, set()))
    assert line.startswith("two: PersistentVolumeClaim/ringsage: spec.accessModes[0]: ")
    assert "than in one" in line
    assert check([sets[0], sets[0]], set()) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("", "", None),
        ("selector: {app: a}", "selector: {app: b}", "no pod of these manifests"),
        ("targetPort: http", "targetPort: web", "expected a port of the pod (6006, http)"),
        ("labels: {app: a}", "labels: {app: c}", "no pod of these manifests"),
    ],
)
def test_what_a_service_selects_is_there(old: str, new: str, words: str | None) -> None:
    lines = reported(parse(SERVICE.replace(old, new), "f"))
    assert (lines == []) if words is None else words in lines[0]


# Nine times nine times ...: a line for each power.
_BOMB = (
    "a0: &a0 ["
    + "x, " * 9
    + "]\n"
    + "".join(f"a{power}: &a{power} [" + f"*a{power - 1}, " * 9 + "]\n" for power in range(1, 12))
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\na: 2", "the key 'a' stands twice"),
        ("a: [1", "expected YAML"),
        ("- a", "expected a mapping"),
        ("a: !!timestamp 2020-01-01", "the tag"),
        ("\tx", "expected YAML"),
        ("a: .inf", "no number that JSON knows: quote it"),
        ("a: !!set {x}", "the tag 'tag:yaml.org,2002:set': write the value without it"),
        ("a: &a [*a]", "an alias inside of what it stands for"),
        (_BOMB, "values, those of aliases counted"),
        ("a: " + "[" * 5000 + "]" * 5000, "too many levels"),
        ("a: '" + "x" * 2**20 + "'", "at most 1048576 bytes"),
        ("- " + "x" * 5000, "xxx..."),
        ("a: 1\n---\n3", "document 2: expected a mapping, got 3"),
        ("a: \x00", "expected YAML"),
        ("a: " + "9" * 5000, "expected YAML"),
        ("!!python/name:os.system x: 1", "expected YAML, got in line 1"),
    ],
)
def test_a_file_that_is_no_manifest(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match="a.yaml") as raised:
        read_manifests(str(file))
    assert words in str(raised.value) and "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    "content", [b"kind: M\xfcll", "kind: x".encode("utf-16"), bytes(range(256))]
)
def test_a_file_in_another_encoding(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(UsageError, match=r"a\.yaml: expected a manifest in UTF-8"):
        read_manifests(str(tmp_path / "a.yaml"))


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    for name in (str(loop), str(tmp_path / "none.yaml"), "a\0b", str(tmp_path / ("x" * 999))):
        with pytest.raises(UsageError, match="expected a manifest or a kustomize folder: "):
            read_manifests(name)


def test_what_is_shared_by_an_alias_counts_once_where_it_is_little() -> None:
    (one,) = parse("a: &a {b: 1}\nc: *a\nd: {<<: *a, e: 2}", "f")
    assert one == {"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 1, "e": 2}}


def test_the_command_line_tells_all_and_says_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("kind: Pot", encoding="utf-8")
    assert main(["validate", str(file), str(tmp_path / "none.yaml"), str(tmp_path)]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note: ")]
    assert len(lines) == 3 and all(line.startswith("error: ") for line in lines)
    file.write_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: mine}", encoding="utf-8")
    assert main(["validate", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: in order: Namespace mine\n"
    file.write_text("", encoding="utf-8")
    assert main(["validate", str(file)]) == 2


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("500m", "0.5"),
        (2, "2"),
        ("4Gi", str(2**32)),
        ("1k", "1000"),
        (1.5, "1.5"),
        ("4e9", "4G"),
        ("4E9", "4G"),
        (1e-6, "1u"),
        ("1n", "0.000000001"),
        (".5", "0.5"),
        ("1.", "1"),
        ("0.000001E", "1T"),
        ("1Pi", str(2**50)),
        ("+2", "2"),
    ],
)
def test_quantities(text: Any, number: str) -> None:
    assert is_quantity(text) and str(number_of(text).normalize()) == str(
        number_of(number).normalize()
    )


@pytest.mark.parametrize("text", ["4gb", "", "-1", True, None, "1e3Gi", "Gi"])
def test_no_quantities(text: Any) -> None:
    assert not is_quantity(text)
