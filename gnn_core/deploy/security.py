"""Rules of Pod Security's level `restricted`, and of the user that the image runs as.

A namespace that enforces the level refuses any other pod: the job is there, and never a pod.
"""

from __future__ import annotations

from typing import Any

from gnn_core.deploy.field_types import shown
from gnn_core.deploy.pods import Problems, containers_of, handlers_of

_RESTRICTED = "Pod Security's level restricted"
_VOLUMES = (
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
    "image",
)
_SYSCTLS = (
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
)
_SELINUX = ("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")


def restricted_problems(path: str, pod: dict[str, Any]) -> Problems:
    """The level as a whole, and our own rule that a pod names the user that it runs as."""
    yield from _pod_problems(path, pod)
    above = pod.get("securityContext") or {}
    yield from _context_problems(f"{path}.securityContext", above)
    for at, container in containers_of(path, pod):
        own = container.get("securityContext") or {}
        yield from _container_problems(at, container, own)
        yield from _context_problems(f"{at}.securityContext", own)
        context = above | own
        if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
            got = ", ".join(f"{key} {context.get(key)}" for key in ("runAsNonRoot", "runAsUser"))
            yield (
                f"{at}.securityContext",
                f"expected runAsNonRoot true and a runAsUser such as 1000, got {got}",
            )
        if "seccompProfile" not in context:
            yield (
                f"{at}.securityContext.seccompProfile",
                f"{_RESTRICTED}: expected {{type: RuntimeDefault}}, got none: add it here or above",
            )


def _pod_problems(path: str, pod: dict[str, Any]) -> Problems:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(name):
            yield f"{path}.{name}", f"{_RESTRICTED}: expected false, got true: leave it out"
    for index, volume in enumerate(pod.get("volumes") or ()):
        for source in volume:
            if source != "name" and source not in _VOLUMES:
                yield (
                    f"{path}.volumes[{index}].{source}",
                    f"{_RESTRICTED}: expected one of {', '.join(_VOLUMES)}, got {source}: claim a "
                    "PersistentVolume of it instead",
                )
    for index, one in enumerate((pod.get("securityContext") or {}).get("sysctls") or ()):
        if one["name"] not in _SYSCTLS:
            yield (
                f"{path}.securityContext.sysctls[{index}].name",
                f"{_RESTRICTED}: expected a safe one, got {one['name']!r}: leave it out",
            )


def _context_problems(path: str, context: dict[str, Any]) -> Problems:
    """Of a pod as of a container."""
    for name in ("seccompProfile", "appArmorProfile"):
        profile = context.get(name) or {}
        kind, local = profile.get("type"), profile.get("localhostProfile")
        if kind == "Localhost" and not local:
            yield (
                f"{path}.{name}.localhostProfile",
                "expected the file of the profile on the node, got none: add it, or say type "
                "RuntimeDefault",
            )
        if kind != "Localhost" and local is not None:
            got = f"expected none with type {kind}, got {shown(local)}: leave it out"
            yield f"{path}.{name}.localhostProfile", got
        if kind == "Unconfined":
            yield f"{path}.{name}.type", f"{_RESTRICTED}: expected RuntimeDefault, got {kind}"
    if context.get("runAsUser") == 0:
        yield f"{path}.runAsUser", f"{_RESTRICTED}: expected 1000, got 0, which is root"
    selinux = context.get("seLinuxOptions") or {}
    if selinux.get("type", "") not in _SELINUX or selinux.get("user") or selinux.get("role"):
        got = f"{_RESTRICTED}: expected a type of containers alone, got {shown(selinux)}"
        yield f"{path}.seLinuxOptions", got
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        yield f"{path}.windowsOptions.hostProcess", f"{_RESTRICTED}: expected false, got true"


def _container_problems(path: str, container: dict[str, Any], own: dict[str, Any]) -> Problems:
    at = f"{path}.securityContext"
    if own.get("privileged"):
        yield f"{at}.privileged", f"{_RESTRICTED}: expected false, got true: leave it out"
    if own.get("allowPrivilegeEscalation") is not False:
        got = own.get("allowPrivilegeEscalation", "none")
        yield f"{at}.allowPrivilegeEscalation", f"{_RESTRICTED}: expected false, got {got}"
    capabilities = own.get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or ()):
        got = shown(capabilities.get("drop") or "none")
        yield f"{at}.capabilities.drop", f"{_RESTRICTED}: expected [ALL], got {got}"
    for index, name in enumerate(capabilities.get("add") or ()):
        if name != "NET_BIND_SERVICE":
            yield (
                f"{at}.capabilities.add[{index}]",
                f"{_RESTRICTED}: expected none but NET_BIND_SERVICE, got {name!r}: leave it out",
            )
    if own.get("procMount", "Default") != "Default":
        yield f"{at}.procMount", f"{_RESTRICTED}: expected Default, got {own['procMount']}"
    for index, port in enumerate(container.get("ports") or ()):
        if port.get("hostPort"):
            yield (
                f"{path}.ports[{index}].hostPort",
                f"{_RESTRICTED}: expected none, got {port['hostPort']}: leave it out",
            )
    for name, one in handlers_of(container):
        for way in ("httpGet", "tcpSocket"):
            if (one.get(way) or {}).get("host"):
                yield (
                    f"{path}.{name}.{way}.host",
                    f"{_RESTRICTED}: expected none, which is the pod itself: leave it out",
                )
