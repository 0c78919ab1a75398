"""What may stand in a manifest: the fields that we use, and no others, of each kind of object.

Shapes are those of `shapes`. After Kubernetes' API reference and types.go of the MPI Operator's
v2beta1, whose own checks come too late: the API server takes what the operator then refuses, and
all that is seen is that no pod comes.
"""

from __future__ import annotations

from typing import Any

_TEXTS = {"*": "text"}
_LABELS = {"*": "label"}
_META = {"name!": "name", "namespace": "short", "labels": _LABELS, "annotations": _TEXTS}
_TEMPLATE_META = {"labels": _LABELS, "annotations": _TEXTS}
_SELECTOR = {"matchLabels": _LABELS}

_ACTION = {
    "tcpSocket": {"port!": "port"},
    "httpGet": {"port!": "port", "path": "text"},
    "exec": {"command!": ["text"]},
}
_PROBE = _ACTION | {
    "initialDelaySeconds": "count",
    "periodSeconds": "positive",
    "timeoutSeconds": "positive",
    "failureThreshold": "positive",
    "successThreshold": "positive",
}
_ENV = {
    "name!": "variable",
    "value": "text",
    "valueFrom": {
        "fieldRef": {"fieldPath!": "text"},
        "resourceFieldRef": {"resource!": "text", "containerName": "text", "divisor": "quantity"},
        "secretKeyRef": {"name!": "text", "key!": "text"},
        "configMapKeyRef": {"name!": "text", "key!": "text"},
    },
}
_CONTAINER = {
    "name!": "short",
    "image!": "text",
    "imagePullPolicy": ("Always", "IfNotPresent", "Never"),
    "command": ["text"],
    "args": ["text"],
    "workingDir": "text",
    "env": [_ENV],
    "ports": [{"name": "portname", "containerPort!": "number", "protocol": ("TCP", "UDP")}],
    "resources": {"requests": {"*": "quantity"}, "limits": {"*": "quantity"}},
    "readinessProbe": _PROBE,
    "livenessProbe": _PROBE,
    "startupProbe": _PROBE,
    "lifecycle": {"preStop": _ACTION, "postStart": _ACTION},
    "securityContext": {
        "runAsNonRoot": "bool",
        "runAsUser": "count",
        "runAsGroup": "count",
        "readOnlyRootFilesystem": "bool",
        "allowPrivilegeEscalation": "bool",
        "privileged": "bool",
        "capabilities": {"add": ["text"], "drop": ["text"]},
        "seccompProfile": {"type!": ("RuntimeDefault", "Unconfined", "Localhost")},
    },
    "volumeMounts": [
        {"name!": "short", "mountPath!": "path", "subPath": "text", "readOnly": "bool"}
    ],
}
_ITEMS = [{"key!": "text", "path!": "text"}]
_VOLUME = {
    "name!": "short",
    "persistentVolumeClaim": {"claimName!": "name", "readOnly": "bool"},
    "emptyDir": {"medium": ("", "Memory"), "sizeLimit": "quantity"},
    "configMap": {"name!": "name", "items": _ITEMS, "defaultMode": "count", "optional": "bool"},
    "secret": {"secretName!": "name", "items": _ITEMS, "defaultMode": "count"},
    "hostPath": {"path!": "text", "type": "text"},
}
_EXPRESSIONS = [{"key!": "text", "operator!": "text", "values": ["text"]}]
_POD = {
    "containers!": [_CONTAINER],
    "initContainers": [_CONTAINER],
    "volumes": [_VOLUME],
    "restartPolicy": ("Always", "OnFailure", "Never"),
    "securityContext": {
        "runAsNonRoot": "bool",
        "runAsUser": "count",
        "runAsGroup": "count",
        "fsGroup": "count",
        "fsGroupChangePolicy": ("OnRootMismatch", "Always"),
        "supplementalGroups": ["count"],
        "seccompProfile": {"type!": ("RuntimeDefault", "Unconfined", "Localhost")},
    },
    "serviceAccountName": "name",
    "automountServiceAccountToken": "bool",
    "terminationGracePeriodSeconds": "count",
    "activeDeadlineSeconds": "positive",
    "imagePullSecrets": [{"name!": "name"}],
    "nodeSelector": _TEXTS,
    "priorityClassName": "name",
    "runtimeClassName": "name",
    "schedulerName": "text",
    "hostNetwork": "bool",
    "dnsPolicy": ("Default", "ClusterFirst", "ClusterFirstWithHostNet", "None"),
    "tolerations": [
        {
            "key": "text",
            "operator": ("Exists", "Equal"),
            "value": "text",
            "effect": ("NoSchedule", "PreferNoSchedule", "NoExecute"),
            "tolerationSeconds": "count",
        }
    ],
    "topologySpreadConstraints": [
        {
            "maxSkew!": "positive",
            "topologyKey!": "text",
            "whenUnsatisfiable!": ("DoNotSchedule", "ScheduleAnyway"),
            "labelSelector": _SELECTOR,
            "matchLabelKeys": ["text"],
        }
    ],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms!": [{"matchExpressions": _EXPRESSIONS}]
            }
        },
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {"labelSelector": _SELECTOR, "topologyKey!": "text"}
            ]
        },
    },
}
_TEMPLATE = {"metadata": _TEMPLATE_META, "spec!": _POD}
_REPLICAS = {
    "replicas!": "positive",
    "restartPolicy": ("Never", "OnFailure"),
    "template!": _TEMPLATE,
}
_MPIJOB = {
    "slotsPerWorker!": "positive",
    "runLauncherAsWorker": "bool",
    "sshAuthMountPath": "text",
    "launcherCreationPolicy": ("AtStartup", "WaitForWorkersReady"),
    "mpiImplementation": ("OpenMPI",),  # what the image has
    "runPolicy": {
        "cleanPodPolicy": ("None", "Running", "All"),
        "ttlSecondsAfterFinished": "count",
        "activeDeadlineSeconds": "positive",
        "backoffLimit": "count",
        "suspend": "bool",
        "managedBy": ("kubeflow.org/mpi-operator", "kueue.x-k8s.io/multikueue"),
        "schedulingPolicy": {
            "minAvailable": "positive",
            "queue": "text",
            "minResources": {"*": "quantity"},
            "priorityClass": "text",
            "scheduleTimeoutSeconds": "count",
        },
    },
    "mpiReplicaSpecs!": {"Launcher!": _REPLICAS, "Worker!": _REPLICAS},
}
_JOB = {
    "template!": _TEMPLATE,
    "backoffLimit": "count",
    "completions": "positive",
    "parallelism": "positive",
    "activeDeadlineSeconds": "positive",
    "ttlSecondsAfterFinished": "count",
    "suspend": "bool",
    "podFailurePolicy": {
        "rules!": [
            {
                "action!": ("Ignore", "FailJob", "Count"),
                "onExitCodes": {"operator!": ("In", "NotIn"), "values!": ["count"]},
                "onPodConditions": [{"type!": "text", "status": ("True", "False", "Unknown")}],
            }
        ]
    },
}
_MODES = ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"]
_VOLUME_SPEC = {
    "accessModes!": [tuple(_MODES)],
    "storageClassName": "text",
    "volumeMode": ("Filesystem",),
}
_SPECS: dict[tuple[str, str], dict[str, Any]] = {
    ("MPIJob", "kubeflow.org/v2beta1"): {"spec!": _MPIJOB},
    ("Job", "batch/v1"): {"spec!": _JOB},
    ("Deployment", "apps/v1"): {
        "spec!": {"replicas": "count", "selector!": _SELECTOR, "template!": _TEMPLATE}
    },
    ("Service", "v1"): {
        "spec!": {
            "selector": _LABELS,
            "type": ("ClusterIP", "NodePort", "LoadBalancer"),
            "clusterIP": "text",
            "ports!": [{"name": "portname", "port!": "number", "targetPort": "port"}],
        }
    },
    ("PersistentVolumeClaim", "v1"): {
        "spec!": _VOLUME_SPEC
        | {"resources!": {"requests!": {"storage!": "quantity"}}, "volumeName": "name"}
    },
    ("PersistentVolume", "v1"): {
        "spec!": _VOLUME_SPEC
        | {
            "capacity!": {"storage!": "quantity"},
            "persistentVolumeReclaimPolicy": ("Retain", "Delete"),
            "mountOptions": ["text"],
            "nfs!": {"server!": "text", "path!": "text", "readOnly": "bool"},
        }
    },
    ("ConfigMap", "v1"): {"data": _TEXTS},
    ("Namespace", "v1"): {},
}
# Whose names become a host's or a label, and are shorter; `meaning` knows what an MPIJob's becomes.
_NAMES = {"Service": "host", "Job": "short", "Namespace": "short"}
SCHEMAS: dict[str, dict[str, Any]] = {
    kind: {
        "apiVersion!": (version,),
        "kind!": (kind,),
        "metadata!": _META | {"name!": _NAMES.get(kind, "name")},
    }
    | spec
    for (kind, version), spec in _SPECS.items()
}
"""The shape of each kind of object that is understood."""
