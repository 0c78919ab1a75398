"""What the API server refuses of Kubernetes' own objects is told, and what it takes is not."""

from __future__ import annotations

import pytest

from gnn_core.deploy.manifest_files import MANIFESTS, read_manifests
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

CLAIM = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: p}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"""
VOLUME = """
apiVersion: v1
kind: PersistentVolume
metadata: {name: p}
spec:
  accessModes: [ReadWriteMany]
  capacity: {storage: 1Gi}
  nfs: {server: nfs.example, path: /exports}
"""
CONFIG = """
apiVersion: v1
kind: ConfigMap
metadata: {name: c}
data: {plan.yaml: x}
"""


def in_order(text: str) -> str:
    assert reported(parse(text, "f")) == []
    return text


# (manifest, what stands there, what instead, path, words)
REFUSED = [
    # Job
    (JOB, "restartPolicy: Never", "restartPolicy: Always", "restartPolicy", "Never or OnFailure"),
    (JOB, "restartPolicy: Never", "restartPolicy: OnFailure", "restartPolicy", "expected Never"),
    (JOB, "      restartPolicy: Never\n", "", "restartPolicy", "got Always, the default"),
    (JOB, "[1, 2]", "[0, 1]", "onExitCodes.values", "0 is no failure"),
    (JOB, "[1, 2]", "[2, 1]", "onExitCodes.values", "in order, each once: [1, 2]"),
    (JOB, "[1, 2]", "[1, 1]", "onExitCodes.values", "in order, each once: [1]"),
    (JOB, "[1, 2]", "[1, 300]", "onExitCodes.values", "at most 255, got 300"),
    (JOB, "[1, 2]", "[]", "onExitCodes.values", "one or more"),
    (JOB, "operator: In", "operator: in", "operator", "got 'in'"),
    (JOB, "{operator: In", "{containerName: x, operator: In", "containerName", "one of c, got"),
    (
        JOB,
        "Ignore, onPod",
        "Ignore, onExitCodes: {operator: In, values: [3]}, onPod",
        "rules[0]",
        "got onExitCodes and onPodConditions",
    ),
    (JOB, "Ignore, onPodConditions: [{type: DisruptionTarget}]", "Ignore", "rules[0]", "got none"),
    (JOB, "action: Ignore", "action: FailIndex", "rules[0].action", "backoffLimitPerIndex"),
    (JOB, "backoffLimit: 3", "completionMode: Indexed", "completions", "beside completionMode"),
    (JOB, "backoffLimit: 3", "selector: {}", "spec.selector", "the server makes it"),
    (JOB, "backoffLimit: 3", "parallelism: -1", "parallelism", "0 or more"),
    # Deployment
    (
        DEPLOYMENT,
        "      containers:",
        "      activeDeadlineSeconds: 9\n      containers:",
        "activeDeadlineSeconds",
        "leave it out, or make it a Job",
    ),
    (
        DEPLOYMENT,
        "      containers:",
        "      restartPolicy: Never\n      containers:",
        "restartPolicy",
        "expected Always",
    ),
    (DEPLOYMENT, "{matchLabels: {app: a}}", "{}", "spec.selector", "expected labels, got none"),
    (
        DEPLOYMENT,
        "spec:\n  sel",
        "spec:\n  strategy: {type: Recreate, rollingUpdate: {}}\n  sel",
        "rollingUpdate",
        "with type Recreate",
    ),
    # Service
    (SERVICE, "spec: {sel", "spec: {clusterIP: none, sel", "clusterIP", "did you mean None?"),
    (SERVICE, "spec: {sel", "spec: {clusterIP: None, type: NodePort, sel", "clusterIP", "NodePort"),
    (SERVICE, "ports: [{", "ports: [{port: 81, targetPort: http}, {", "ports[0].name", "several"),
    (
        SERVICE,
        "ports: [{port: 80",
        "ports: [{name: a, port: 81, targetPort: http}, {name: a, port: 80",
        "ports[1].name",
        "twice",
    ),
    (
        SERVICE,
        "ports: [{port: 80",
        "ports: [{name: a, port: 80, targetPort: http}, {name: b, port: 80",
        "ports[1].port",
        "twice",
    ),
    (SERVICE, "{port: 80", "{nodePort: 30000, port: 80", "nodePort", "none with type ClusterIP"),
    (SERVICE, ", ports: [{port: 80, targetPort: http}]", "", "spec.ports", "one or more"),
    # Claims, volumes, data
    (CLAIM, "1Gi", "0", "storage", "more than 0, got 0"),
    (CLAIM, "[ReadWriteOnce]", "[ReadWriteOnce, ReadWriteOncePod]", "accessModes", "alone"),
    (CLAIM, "{access", "{storageClassName: My Class, access", "storageClassName", "a name of"),
    (VOLUME, "path: /exports", "path: exports", "nfs.path", "begins with /"),
    (VOLUME, "server: nfs.example", "server: ''", "nfs.server", "not empty"),
    (VOLUME, "  nfs: {server: nfs.example, path: /exports}\n", "", "spec", "one source"),
    (CONFIG, "plan.yaml: x", "my plan: x", "data.my plan", "got the key 'my plan'"),
    (CONFIG, "plan.yaml: x", "..: x", "data...", "expected a key"),
    (CONFIG, "\ndata:", "\nbinaryData: {plan.yaml: eA==}\ndata:", "binaryData", "it is in data"),
    (CONFIG, "data: {plan.yaml: x}", "binaryData: {a: '%'}", "binaryData.a", "expected base64"),
    # Labels, of objects, of pods and of selectors
    (CONFIG, "{name: c}", "{name: c, labels: {a b: x}}", "labels.a b", "got the key 'a b'"),
    (CONFIG, "{name: c}", "{name: c, labels: {a/b/c: x}}", "labels", "got the key"),
    (CONFIG, "{name: c}", "{name: c, labels: {A.b/c: x}}", "labels", "got the key"),
    (CONFIG, "{name: c}", f"{{name: c, annotations: {{{'a' * 64}: x}}}}", "annotations", "at most"),
    (JOB, "labels: {app: j}", "labels: {-app: j}", "labels", "got the key '-app'"),
    # Pods
    (JOB, "name: A, value", "name: A=B, value", "env[0].name", "without ="),
    (
        JOB,
        "name: A,",
        "name: A, valueFrom: {fieldRef: {fieldPath: metadata.name}},",
        "env[0]",
        "value or valueFrom, got both",
    ),
    (
        JOB,
        'name: A, value: "1"',
        "name: A, valueFrom: {fieldRef: {fieldPath: metadata.uuid}}",
        "fieldPath",
        "got 'metadata.uuid'",
    ),
    (JOB, 'name: A, value: "1"', "name: A, valueFrom: {}", "valueFrom", "got none"),
    (
        JOB,
        "containerPort: 80}",
        "containerPort: 80}, {name: http, containerPort: 81}",
        "ports[1]",
        "'http' stands twice",
    ),
    (
        JOB,
        "        env:",
        "        livenessProbe: {exec: {command: [a]}, tcpSocket: {port: 80}}\n        env:",
        "livenessProbe",
        "got exec and tcpSocket: remove all but one",
    ),
    (JOB, "        env:", "        livenessProbe: {}\n        env:", "livenessProbe", "add one"),
    (JOB, "        env:", "        lifecycle: {preStop: {}}\n        env:", "preStop", "got none"),
    (JOB, "memory: 1Gi", "memory: 1Gi, gpus: 1", "limits.gpus", "a device such as"),
    (JOB, "memory: 1Gi", "memory: 1Gi, nvidia.com/gpu: 500m", "gpu", "a whole number of devices"),
    (
        JOB,
        "      containers:",
        "      initContainers: [{name: c, image: 'i:1'}]\n      containers:",
        "initContainers[0].name",
        "stands twice, here and in containers[0]",
    ),
    (
        JOB,
        "      containers:",
        "      dnsPolicy: None\n      containers:",
        "nameservers",
        "got none",
    ),
    (
        JOB,
        "      containers:",
        "      dnsConfig: {nameservers: [here]}\n      containers:",
        "nameservers[0]",
        "expected an IP address",
    ),
    (
        JOB,
        "      containers:",
        "      tolerations: [{key: a, operator: Exists, value: b}]\n      containers:",
        "tolerations[0].value",
        "compares none",
    ),
    (
        JOB,
        "      containers:",
        "      tolerations: [{operator: Equal}]\n      containers:",
        "tolerations[0].operator",
        "expected Exists",
    ),
    (
        JOB,
        "      containers:",
        "      tolerations:\n      - {key: a, operator: Exists, "
        "effect: NoSchedule, tolerationSeconds: 5}\n      containers:",
        "tolerationSeconds",
        "NoExec",
    ),
    (
        JOB,
        "      containers:",
        "      nodeSelector: {a: b c}\n      containers:",
        "nodeSelector.a",
        "expected a label",
    ),
    (
        JOB,
        "      containers:",
        "      hostAliases: [{ip: here}]\n      containers:",
        "ip",
        "address",
    ),
    (
        JOB,
        "      containers:",
        "      priorityClassName: high\n      containers:",
        "priorityClassName",
        "--external PriorityClass/high",
    ),
    (
        JOB,
        "      containers:",
        "      serviceAccountName: me\n      containers:",
        "serviceAccountName",
        "--external ServiceAccount/me",
    ),
    (JOB, "emptyDir: {}", "secret: {secretName: x, defaultMode: 777}", "defaultMode", "0777"),
    (
        JOB,
        "emptyDir: {}",
        "secret: {secretName: x, items: [{key: a, path: ../b}]}",
        "path",
        "'../b'",
    ),
    (JOB, "emptyDir: {}", "emptyDir:", "volumes[0]", "got none"),
    (JOB, "mountPath: /v", "mountPath: /v, subPath: ../a", "subPath", "without .."),
    # Pod Security
    (JOB, "emptyDir: {}", "hostPath: {path: /data}", "hostPath", "restricted"),
    (JOB, "emptyDir: {}", "nfs: {server: a, path: /}", "volumes[0].nfs", "restricted"),
    (JOB, "drop: [ALL]", "drop: [ALL], add: [SYS_ADMIN]", "add[0]", "but NET_BIND_SERVICE"),
    (JOB, "{drop: [ALL]}", "{drop: [CHOWN]}", "drop", "expected [ALL]"),
    (JOB, "Escalation: false", "Escalation: true", "allowPrivilegeEscalation", "got True"),
    (JOB, "allowPrivilegeEscalation: false, ", "", "allowPrivilegeEscalation", "got none"),
    (JOB, "type: RuntimeDefault", "type: Localhost", "localhostProfile", "got none"),
    (JOB, "type: RuntimeDefault", "type: Unconfined", "seccompProfile.type", "restricted"),
    (JOB, ", seccompProfile: {type: RuntimeDefault}", "", "seccompProfile", "add it"),
    (JOB, "containerPort: 80}", "containerPort: 80, hostPort: 80}", "hostPort", "restricted"),
    (
        JOB,
        "      containers:",
        "      hostNetwork: true\n      containers:",
        "hostNetwork",
        "restr",
    ),
]


@pytest.mark.parametrize(("text", "old", "new", "path", "words"), REFUSED)
def test_what_the_server_refuses_is_reported(
    text: str, old: str, new: str, path: str, words: str
) -> None:
    assert old in in_order(text)
    lines = reported(parse(text.replace(old, new, 1), "f"))
    assert any(path in line and words in line for line in lines), lines
    assert all(line.startswith("f: ") and "\n" not in line for line in lines)


TAKEN = [
    (
        JOB.replace("      containers:", "      os: {name: linux}\n      containers:"),
        "        env:",
        "        lifecycle: {stopSignal: SIGUSR1}\n        env:",
    ),
    (JOB, "name: A, value", "name: 1UP, value"),
    (JOB, "name: A, value", "name: my.var-a, value"),
    (JOB, "cpu: 1,", "cpu: 1.5,"),
    (JOB, "memory: 1Gi", "memory: 4e9"),
    (JOB, "memory: 1Gi", "memory: 0.000001E"),
    (JOB, "memory: 1Gi", "memory: 1Gi, nvidia.com/gpu: 1"),
    (JOB, "backoffLimit: 3", "parallelism: 0"),
    (JOB, "backoffLimit: 3", "completionMode: Indexed\n  completions: 2"),
    (JOB, "backoffLimit: 3", "podReplacementPolicy: Failed"),
    (JOB, "backoffLimit: 3", "suspend: null"),
    (JOB, "metadata: {name: j}", "metadata: {name: j.k, labels: {example.com/a.B: c_d, e: ''}}"),
    (JOB, 'value: "1"}', 'value: "1"}, {name: A, value: "2"}'),  # the last one counts
    (JOB, "containerPort: 80}", "containerPort: 80}, {name: https, containerPort: 80}"),
    (JOB, "      containers:", "      nodeSelector: null\n      containers:"),
    (JOB, "      containers:", "      tolerations: [{operator: Exists}]\n      containers:"),
    (JOB, "      containers:", "      enableServiceLinks: false\n      containers:"),
    (JOB, "      containers:", "      hostUsers: false\n      containers:"),
    (JOB, "      containers:", "      priorityClassName: system-node-critical\n      containers:"),
    (
        JOB,
        "      containers:",
        "      affinity:\n        podAffinity:\n"
        "          preferredDuringSchedulingIgnoredDuringExecution:\n"
        "          - {weight: 9, podAffinityTerm: {topologyKey: a/b, labelSelector: {}}}\n"
        "      containers:",
    ),
    (JOB, "        env:", "        envFrom: [{configMapRef: {name: c}}]\n        env:"),
    (JOB, "        env:", "        terminationMessagePolicy: FallbackToLogsOnError\n        env:"),
    (JOB, "        env:", "        lifecycle: {preStop: {sleep: {seconds: 3}}}\n        env:"),
    (
        JOB,
        "emptyDir: {}",
        "downwardAPI: {items: [{path: a, fieldRef: {fieldPath: metadata.name}}]}",
    ),
    (JOB, "emptyDir: {}", "projected: {sources: [{secret: {name: s}}]}"),
    (JOB, "emptyDir: {}", "configMap: {name: c, optional: true}"),
    (JOB, "emptyDir: {}", "secret: {secretName: x, defaultMode: 0o400}"),
    (DEPLOYMENT, "spec:\n  sel", "spec:\n  revisionHistoryLimit: 2\n  sel"),
    (
        DEPLOYMENT,
        "{matchLabels: {app: a}}",
        "{matchExpressions: [{key: app, operator: In, values: [a]}]}",
    ),
    (SERVICE, "spec: {sel", "spec: {clusterIP: None, sel"),
    (SERVICE, "spec: {sel", "spec: {type: NodePort, sel"),
    (SERVICE, "spec: {sel", "spec: {clusterIP: 10.0.0.9, sel"),
    (SERVICE, "{port: 80", "{appProtocol: http, port: 80"),
    (CLAIM, "[ReadWriteOnce]", "[ReadWriteOncePod]"),
    (CLAIM, "{access", "{storageClassName: '', access"),
    (CLAIM, "{access", "{volumeAttributesClassName: fast, access"),
    (VOLUME, "nfs: {server: nfs.example, path: /exports}", "csi: {driver: d, volumeHandle: h}"),
    (CONFIG, "\ndata:", "\nbinaryData: {a: eA==}\nimmutable: true\ndata:"),
    (CONFIG, "{name: c}", "{name: c, annotations: {example.com/date: 2020-01-01}}"),
]


@pytest.mark.parametrize(("text", "old", "new"), TAKEN)
def test_what_the_server_takes_is_in_order(text: str, old: str, new: str) -> None:
    assert old in text
    in_order(text.replace(old, new, 1))


def test_what_a_pod_names_may_be_there() -> None:
    words = "      priorityClassName: high\n      serviceAccountName: me\n      containers:"
    objects = parse(JOB.replace("      containers:", words), "f")
    assert reported(objects, there=["PriorityClass/high", "ServiceAccount/me"]) == []
    made = """
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: high}
value: 9
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: me}
"""
    assert reported([*objects, *parse(made, "f")]) == []


@pytest.mark.parametrize(
    ("where", "value", "path", "words"),
    [
        (
            f"{WORKER}.containers.0.resources.limits.cpu",
            2.5,
            "limits.cpu",
            "got 2.5: put it in quotes",
        ),
        (f"{WORKER}.containers.0.ports.1", {"containerPort": 2222}, "ports[1]", "stands twice"),
        (f"{LAUNCHER}.containers.0.env.1.name", "OMP_NUM_THREADS", "env[1].name", "stands twice"),
        (f"{WORKER}.volumes.4", {"name": "ssh-auth", "emptyDir": {}}, "volumes[4].name", "itself"),
        (
            f"{LAUNCHER}.volumes.4",
            {"name": "mpi-job-config", "emptyDir": {}},
            "volumes[4]",
            "itself",
        ),
        (
            f"{LAUNCHER}.containers.0.volumeMounts.4",
            {"name": "scratch", "mountPath": "/etc/mpi"},
            "volumeMounts[4].mountPath",
            "choose another path",
        ),
        (
            f"{WORKER}.containers.0.volumeMounts.4",
            {"name": "scratch", "mountPath": "/home/mpiuser/.ssh"},
            "volumeMounts[4].mountPath",
            "choose another path",
        ),
        (f"{LAUNCHER}.initContainers.0.name", "launcher", "initContainers[0].name", "twice"),
        (
            f"{WORKER}.topologySpreadConstraints.0.matchLabelKeys.0",
            "training.kubeflow.org/job-role",
            "matchLabelKeys[0]",
            "leave it out here or there",
        ),
        ("metadata.labels", {"a b": "c"}, "metadata.labels.a b", "got the key"),
    ],
)
def test_what_the_operator_cannot_complete_is_reported(
    where: str, value: object, path: str, words: str
) -> None:
    objects = base()
    spoil(objects, "MPIJob", where, value)
    lines = reported(objects)
    assert any(path in line and words in line for line in lines), lines


@pytest.mark.parametrize(
    ("kind", "name"),
    [("Service", "ringsage"), ("ConfigMap", "ringsage-config"), ("Secret", "ringsage-ssh")],
)
def test_an_object_that_the_operator_makes_itself(kind: str, name: str) -> None:
    spec = "spec: {clusterIP: None}" if kind == "Service" else "data: {}"
    other = parse(f"apiVersion: v1\nkind: {kind}\nmetadata: {{name: {name}}}\n{spec}", "f")
    (line,) = reported([*base(), *other])
    assert f"MPIJob/ringsage: metadata.name: the operator makes a {kind} '{name}'" in line


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (f"{WORKER}.nodeSelector", {"a": None}),
        ("spec.slotsPerWorker", "2.0 in YAML"),
        (f"{WORKER}.initContainers", "sidecar"),
        ("spec.mpiReplicaSpecs.Launcher.replicas", None),
        (f"{LAUNCHER}.containers.0.env.5", {"name": "1UP", "value": "x"}),
    ],
)
def test_an_mpijob_that_the_server_takes(where: str, value: object) -> None:
    objects = base()
    if value == "sidecar":
        pods = objects[1]["spec"]["mpiReplicaSpecs"]
        init = pods["Launcher"]["template"]["spec"]["initContainers"][0]
        value = [{**init, "restartPolicy": "Always"}]
    if where.endswith("slotsPerWorker"):
        value = parse("a: 2.0", "f")[0]["a"]
    spoil(objects, "MPIJob", where, value)
    assert reported(objects) == []


def test_a_mount_of_what_the_operator_adds() -> None:
    objects = base()
    mount = {"name": "mpi-job-config", "mountPath": "/hosts"}
    spoil(objects, "MPIJob", f"{LAUNCHER}.initContainers.0.volumeMounts.4", mount)
    assert reported(objects) == []
    spoil(objects, "MPIJob", f"{WORKER}.containers.0.volumeMounts.4", mount)
    (line,) = reported(objects)
    assert "no volume has the name 'mpi-job-config'" in line


def test_kueue_suspends_its_jobs_itself() -> None:
    objects = list(read_manifests(str(MANIFESTS / "overlays" / "kueue")).objects)
    assert reported(objects) == []
    spoil(objects, "MPIJob", "spec.runPolicy.suspend", True)
    (line,) = reported(objects)
    assert "spec.runPolicy.suspend: Kueue sets it by itself" in line and "leave it out" in line
