"""What may stand in a manifest, by kind of object: shapes as `field_types` compares them.

Of an MPIJob it is every field, after types.go of the MPI Operator's v2beta1, whose own checks come
too late: the API server takes what the operator then refuses, and all that is seen is that no pod
comes. Of Kubernetes' own objects it is the type of each field that the rules read; any other field
may stand there, and `kubernetes_schema` compares all of them with Kubernetes' schema.
"""

from __future__ import annotations

OTHERS = {"*": "any"}
LABELS = {"*label key": "label"}
_ANNOTATIONS = {"*label key": "text"}
META = {"name!": "name", "namespace": "short", "labels": LABELS, "annotations": _ANNOTATIONS}
_TEMPLATE_META = {"labels": LABELS, "annotations": _ANNOTATIONS} | OTHERS
SELECTOR = {
    "matchLabels": LABELS,
    "matchExpressions": [
        {
            "key!": "label key",
            "operator!": ("In", "NotIn", "Exists", "DoesNotExist"),
            "values": ["label"],
        }
    ],
}

_ACTION = {
    "tcpSocket": {"port!": "port"} | OTHERS,
    "httpGet": {"port!": "port", "path": "text", "scheme": ("HTTP", "HTTPS")} | OTHERS,
    "exec": {"command!": ["text"]},
    "grpc": {"port!": "number"} | OTHERS,
    "sleep": {"seconds!": "count"},
} | OTHERS
_PROBE = _ACTION | {
    "initialDelaySeconds": "count",
    "periodSeconds": "count",
    "timeoutSeconds": "count",
    "failureThreshold": "count",
    "successThreshold": "count",
    "terminationGracePeriodSeconds": "positive",
}
_FIELD = {"fieldPath!": "text"} | OTHERS
_RESOURCE_FIELD = {"resource!": "text", "containerName": "text", "divisor": "quantity"}
_KEY_REF = {"name!": "name", "key!": "data key", "optional": "bool"}
_ENV = {
    "name!": "variable",
    "value": "text",
    "valueFrom": {
        "fieldRef": _FIELD,
        "resourceFieldRef": _RESOURCE_FIELD,
        "secretKeyRef": _KEY_REF,
        "configMapKeyRef": _KEY_REF,
    }
    | OTHERS,
} | OTHERS
_FROM = {"name!": "name", "optional": "bool"}
_PROFILE = {"type!": ("RuntimeDefault", "Unconfined", "Localhost"), "localhostProfile": "text"}
_USER = {
    "runAsNonRoot": "bool",
    "runAsUser": "count",
    "runAsGroup": "count",
    "seccompProfile": _PROFILE,
    "appArmorProfile": _PROFILE,
    "seLinuxOptions": {"*": "text"},
    "windowsOptions": OTHERS,
} | OTHERS
_CONTAINER = {
    "name!": "short",
    "image!": "some text",
    "imagePullPolicy": ("Always", "IfNotPresent", "Never"),
    "terminationMessagePolicy": ("File", "FallbackToLogsOnError"),
    "command": ["text"],
    "args": ["text"],
    "workingDir": "text",
    "env": [_ENV],
    "envFrom": [{"configMapRef": _FROM, "secretRef": _FROM} | OTHERS],
    "ports": [
        {
            "name": "portname",
            "containerPort!": "number",
            "hostPort": "number",
            "protocol": ("TCP", "UDP", "SCTP"),
        }
        | OTHERS
    ],
    "resources": {"requests": {"*": "quantity"}, "limits": {"*": "quantity"}} | OTHERS,
    "readinessProbe": _PROBE,
    "livenessProbe": _PROBE,
    "startupProbe": _PROBE,
    "lifecycle": {"preStop": _ACTION, "postStart": _ACTION} | OTHERS,
    "restartPolicy": ("Always", "OnFailure", "Never"),
    "securityContext": _USER
    | {
        "readOnlyRootFilesystem": "bool",
        "allowPrivilegeEscalation": "bool",
        "privileged": "bool",
        "procMount": ("Default", "Unmasked"),
        "capabilities": {"add": ["text"], "drop": ["text"]},
    },
    "volumeMounts": [
        {
            "name!": "short",
            "mountPath!": "path",
            "subPath": "text",
            "readOnly": "bool",
            "mountPropagation": ("None", "HostToContainer"),  # no other without privileges
        }
        | OTHERS
    ],
} | OTHERS
_ITEMS = [{"key!": "data key", "path!": "some text", "mode": "mode"}]
_KEPT = {"items": _ITEMS, "defaultMode": "mode", "optional": "bool"}
_DOWNWARD = [
    {"path!": "some text", "fieldRef": _FIELD, "resourceFieldRef": _RESOURCE_FIELD, "mode": "mode"}
]
NFS = {"server!": "some text", "path!": "path", "readOnly": "bool"}
HOST_PATH = {"path!": "some text", "type": "text"}
_VOLUME = {
    "name!": "short",
    "persistentVolumeClaim": {"claimName!": "name", "readOnly": "bool"},
    "emptyDir": {"medium": "text", "sizeLimit": "quantity"},
    "configMap": {"name!": "name"} | _KEPT,
    "secret": {"secretName!": "name"} | _KEPT,
    "downwardAPI": {"items": _DOWNWARD, "defaultMode": "mode"},
    "projected": {"sources": [OTHERS], "defaultMode": "mode"},
    "hostPath": HOST_PATH,
    "nfs": NFS,
    "ephemeral": OTHERS,
    "csi": OTHERS,
} | OTHERS
_EXPRESSION = {
    "key!": "label key",
    "operator!": ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"),
    "values": ["text"],
}
_TERM = {"matchExpressions": [_EXPRESSION], "matchFields": [OTHERS]}
_POD_TERM = {"labelSelector": SELECTOR, "topologyKey!": "label key"} | OTHERS
_REQUIRED, _PREFERRED = (
    f"{how}DuringSchedulingIgnoredDuringExecution" for how in ("required", "preferred")
)
_POD_AFFINITY = {
    _REQUIRED: [_POD_TERM],
    _PREFERRED: [{"weight!": "positive", "podAffinityTerm!": _POD_TERM}],
}
_POD = {
    "containers!": [_CONTAINER],
    "initContainers": [_CONTAINER],
    "volumes": [_VOLUME],
    "restartPolicy": ("Always", "OnFailure", "Never"),
    "securityContext": _USER
    | {
        "fsGroup": "count",
        "fsGroupChangePolicy": ("OnRootMismatch", "Always"),
        "supplementalGroups": ["count"],
        "sysctls": [{"name!": "text", "value!": "text"}],
    },
    "serviceAccountName": "name",
    "automountServiceAccountToken": "bool",
    "terminationGracePeriodSeconds": "count",
    "activeDeadlineSeconds": "positive",
    "imagePullSecrets": [{"name!": "name"}],
    "nodeSelector": LABELS,
    "priorityClassName": "name",
    "runtimeClassName": "name",
    "hostname": "short",
    "subdomain": "short",
    "preemptionPolicy": ("Never", "PreemptLowerPriority"),
    "os": {"name!": ("linux", "windows")},
    "hostNetwork": "bool",
    "hostPID": "bool",
    "hostIPC": "bool",
    "shareProcessNamespace": "bool",
    "dnsPolicy": ("Default", "ClusterFirst", "ClusterFirstWithHostNet", "None"),
    "dnsConfig": {"nameservers": ["text"], "searches": ["text"]} | OTHERS,
    "hostAliases": [{"ip!": "text", "hostnames": ["name"]}],
    "tolerations": [
        {
            "key": "text",
            "operator": ("Exists", "Equal", "Lt", "Gt"),
            "value": "text",
            "effect": ("NoSchedule", "PreferNoSchedule", "NoExecute"),
        }
        | OTHERS
    ],
    "topologySpreadConstraints": [
        {
            "maxSkew!": "positive",
            "minDomains": "positive",
            "topologyKey!": "label key",
            "whenUnsatisfiable!": ("DoNotSchedule", "ScheduleAnyway"),
            "labelSelector": SELECTOR,
            "matchLabelKeys": ["label key"],
            "nodeAffinityPolicy": ("Honor", "Ignore"),
            "nodeTaintsPolicy": ("Honor", "Ignore"),
        }
    ],
    "affinity": {
        "nodeAffinity": {
            _REQUIRED: {"nodeSelectorTerms!": [_TERM]},
            _PREFERRED: [{"weight!": "positive", "preference!": _TERM}],
        },
        "podAffinity": _POD_AFFINITY,
        "podAntiAffinity": _POD_AFFINITY,
    },
} | OTHERS
TEMPLATE = {"metadata": _TEMPLATE_META, "spec!": _POD}
_OPERATORS_META = {
    "labels": LABELS,
    "annotations": _ANNOTATIONS,
    "name": "text",
    "namespace": "text",
    "finalizers": ["text"],
}
_REPLICAS = {
    "replicas": "positive",
    "restartPolicy": ("Never", "OnFailure"),
    "template!": TEMPLATE | {"metadata": _OPERATORS_META},
}
MPIJOB = {
    "slotsPerWorker": "positive",
    "runLauncherAsWorker": "bool",
    "sshAuthMountPath": "path",
    "launcherCreationPolicy": ("AtStartup", "WaitForWorkersReady"),
    "mpiImplementation": ("OpenMPI",),  # what the image has
    "runPolicy": {
        "cleanPodPolicy": ("None", "Running", "All"),
        "ttlSecondsAfterFinished": "count",
        "activeDeadlineSeconds": "count",
        "backoffLimit": "count",
        "suspend": "bool",
        "managedBy": ("kubeflow.org/mpi-operator", "kueue.x-k8s.io/multikueue"),
        "schedulingPolicy": {
            "minAvailable": "count",
            "queue": "text",
            "minResources": {"*": "quantity"},
            "priorityClass": "text",
            "scheduleTimeoutSeconds": "count",
        },
    },
    "mpiReplicaSpecs!": {"Launcher!": _REPLICAS, "Worker!": _REPLICAS | {"replicas!": "positive"}},
}
