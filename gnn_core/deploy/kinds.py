"""The kinds of objects that are understood, and the shape of each as `field_types` compares it."""

from __future__ import annotations

from typing import Any

from gnn_core.deploy.schema import HOST_PATH, LABELS, META, MPIJOB, NFS, OTHERS, SELECTOR, TEMPLATE

_TEXTS = {"*data key": "text"}
_EXIT_CODES = {"operator!": ("In", "NotIn"), "values!": ["count"], "containerName": "short"}
_JOB = {
    "template!": TEMPLATE,
    "backoffLimit": "count",
    "completions": "count",
    "parallelism": "count",
    "activeDeadlineSeconds": "count",
    "ttlSecondsAfterFinished": "count",
    "backoffLimitPerIndex": "count",
    "completionMode": ("NonIndexed", "Indexed"),
    "podReplacementPolicy": ("TerminatingOrFailed", "Failed"),
    "manualSelector": "bool",
    "selector": SELECTOR,
    "suspend": "bool",
    "podFailurePolicy": {
        "rules!": [
            {
                "action!": ("Ignore", "FailJob", "Count", "FailIndex"),
                "onExitCodes": _EXIT_CODES,
                "onPodConditions": [{"type!": "label key", "status": ("True", "False", "Unknown")}],
            }
        ]
    },
} | OTHERS
_SELECTING = {"selector!": SELECTOR, "template!": TEMPLATE, "minReadySeconds": "count"} | OTHERS
_ROLLING = {"replicas": "count", "progressDeadlineSeconds": "positive"}
_STRATEGY = {"type": ("Recreate", "RollingUpdate"), "rollingUpdate": OTHERS}
_ORDERED = {"replicas": "count", "podManagementPolicy": ("OrderedReady", "Parallel")}
_SERVICE = {
    "selector": LABELS,
    "type": ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName"),
    "clusterIP": "text",
    "externalName": "name",
    "sessionAffinity": ("None", "ClientIP"),
    "externalTrafficPolicy": ("Cluster", "Local"),
    "internalTrafficPolicy": ("Cluster", "Local"),
    "ipFamilyPolicy": ("SingleStack", "PreferDualStack", "RequireDualStack"),
    "ports": [
        {
            "name": "short",
            "port!": "number",
            "targetPort": "port",
            "nodePort": "number",
            "protocol": ("TCP", "UDP", "SCTP"),
        }
        | OTHERS
    ],
} | OTHERS
_MODES = ("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod")
_VOLUME = {
    "accessModes!": [_MODES],
    "storageClassName": "text",
    "volumeMode": ("Filesystem", "Block"),
} | OTHERS
_CLAIM = _VOLUME | {
    "resources!": {"requests!": {"storage!": "quantity"} | OTHERS} | OTHERS,
    "selector": SELECTOR,
    "volumeName": "name",
}
_PERSISTENT = _VOLUME | {
    "capacity!": {"storage!": "quantity"} | OTHERS,
    "persistentVolumeReclaimPolicy": ("Retain", "Delete", "Recycle"),
    "mountOptions": ["text"],
    "nfs": NFS,
    "hostPath": HOST_PATH,
}
_CRON = {
    "schedule!": "some text",
    "jobTemplate!": {"spec!": _JOB} | OTHERS,
    "concurrencyPolicy": ("Allow", "Forbid", "Replace"),
} | OTHERS
# (kind, apiVersion) -> what stands beside apiVersion, kind and metadata
_SPECS: dict[tuple[str, str], dict[str, Any]] = {
    ("MPIJob", "kubeflow.org/v2beta1"): {"spec!": MPIJOB},
    ("Job", "batch/v1"): {"spec!": _JOB},
    ("CronJob", "batch/v1"): {"spec!": _CRON},
    ("Pod", "v1"): {"spec!": TEMPLATE["spec!"]},
    ("Deployment", "apps/v1"): {"spec!": _SELECTING | _ROLLING | {"strategy": _STRATEGY}},
    ("StatefulSet", "apps/v1"): {"spec!": _SELECTING | _ORDERED},
    ("DaemonSet", "apps/v1"): {"spec!": _SELECTING},
    ("Service", "v1"): {"spec!": _SERVICE},
    ("PersistentVolumeClaim", "v1"): {"spec!": _CLAIM},
    ("PersistentVolume", "v1"): {"spec!": _PERSISTENT},
    ("ConfigMap", "v1"): {"data": _TEXTS, "binaryData": _TEXTS, "immutable": "bool"},
    ("Secret", "v1"): {"data": _TEXTS, "stringData": _TEXTS, "immutable": "bool", "type": "text"},
    ("ServiceAccount", "v1"): OTHERS,
    ("Namespace", "v1"): {"spec": OTHERS},
    ("PriorityClass", "scheduling.k8s.io/v1"): {"value!": "any"} | OTHERS,
    ("StorageClass", "storage.k8s.io/v1"): {"provisioner!": "some text"} | OTHERS,
    ("RuntimeClass", "node.k8s.io/v1"): {"handler!": "short"} | OTHERS,
}
OF_NO_NAMESPACE = (
    "Namespace",
    "PersistentVolume",
    "PriorityClass",
    "StorageClass",
    "RuntimeClass",
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
)
# Names that become a host's or a label, and are shorter; `mpijob_rules` checks those of an MPIJob.
_NAMES = {"Service": "host", "Job": "short name", "Namespace": "short"}
SCHEMAS: dict[str, dict[str, Any]] = {
    kind: {
        "apiVersion!": (version,),
        "kind!": (kind,),
        "metadata!": META | {"name!": _NAMES.get(kind, "name")} | OTHERS,
    }
    | spec
    for (kind, version), spec in _SPECS.items()
}
"""The shape of each kind of object that the rules know."""
