"""The resources of a stack, as a template of Heat (HOT)."""

from __future__ import annotations

from typing import Any

import yaml

from gnn_core.deploy import heat_text
from gnn_core.deploy.heat import HeatSettings
from gnn_core.deploy.heat_text import HOME, MASTER, NETWORK, TOLD, worker_address
from gnn_core.usage import UsageError

_VERSION = "2018-08-31"  # of Heat's Rocky release: older clouds read it, too
_CLOUD = {  # parameter -> what Heat checks it against, before it creates anything
    "image": "glance.image",
    "flavor": "nova.flavor",
    "key": "nova.keypair",
    "network": "neutron.network",
}


class _Writer(yaml.SafeDumper):
    """Writes a text of several lines as such."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(writer: _Writer, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return writer.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Writer.add_representer(str, _text)


def make_heat(settings: HeatSettings) -> str:
    """The template, as YAML. Raises UsageError with every problem of the settings."""
    if wrong := settings.problems():
        raise UsageError("; ".join(wrong))
    template = {
        "heat_template_version": _VERSION,
        "description": f"{settings.entrypoint} by {settings.launcher} on a master and "
        f"{settings.workers} workers.",
        "parameters": _parameters(settings),
        "resources": {
            **_network(),
            **_security(),
            **_master(settings),
            **(_workers(settings) if settings.workers else {}),
            **(_waits(settings) if settings.signals else {}),
        },
        "outputs": _outputs(settings),
    }
    text: str = yaml.dump(template, Dumper=_Writer, sort_keys=False, width=100)
    return text


def _get(resource: str, attribute: str = "") -> dict[str, Any]:
    return {"get_attr": [resource, attribute]} if attribute else {"get_resource": resource}


def _named(what: str) -> dict[str, Any]:
    return {"list_join": ["-", [{"get_param": "OS::stack_name"}, what]]}


def _parameters(settings: HeatSettings) -> dict[str, Any]:
    names = [*_CLOUD, "ssh_from", *(["reservation"] if settings.reservation else [])]
    return {
        name: {
            "type": "string",
            "default": getattr(settings, name),
            **({"constraints": [{"custom_constraint": _CLOUD[name]}]} if name in _CLOUD else {}),
        }
        for name in names
    }


def _network() -> dict[str, Any]:
    prefix, _, _ = MASTER.rpartition(".")
    return {
        "net": {"type": "OS::Neutron::Net"},
        "subnet": {
            "type": "OS::Neutron::Subnet",
            "properties": {
                "network": _get("net"),
                "cidr": NETWORK,
                "gateway_ip": f"{prefix}.1",
                # For DHCP; the addresses of the machines are given, and lie outside.
                "allocation_pools": [{"start": "10.8.254.1", "end": "10.8.254.254"}],
            },
        },
        "router": {
            "type": "OS::Neutron::Router",
            "properties": {"external_gateway_info": {"network": {"get_param": "network"}}},
        },
        "interface": {
            "type": "OS::Neutron::RouterInterface",
            "properties": {"router": _get("router"), "subnet": _get("subnet")},
        },
    }


def _security() -> dict[str, Any]:
    ssh = {
        "direction": "ingress",
        "protocol": "tcp",
        "port_range_min": 22,
        "port_range_max": 22,
        "remote_ip_prefix": {"get_param": "ssh_from"},
    }
    return {
        "ssh": {"type": "OS::Neutron::SecurityGroup", "properties": {"rules": [ssh]}},
        "inside": {
            "type": "OS::Neutron::SecurityGroup",
            "properties": {"rules": [{"direction": "ingress", "remote_mode": "remote_group_id"}]},
        },
    }


def _server(settings: HeatSettings, *, master: bool) -> dict[str, Any]:
    """What the machines have in common."""
    given = {}
    if settings.signals:
        given["STATE_SIGNAL"] = _get("master_signal" if master else "worker_signal", "curl_cli")
        if master:
            given["KEY_SIGNAL"] = _get("key_signal", "curl_cli")
        else:
            given["KEY"] = _get("key_state", "data")
    marks = {f"@{name}@": value for name, value in given.items()}
    head = {"str_replace": {"template": heat_text.head([*given]), "params": marks}}
    hints = {"scheduler_hints": {"reservation": {"get_param": "reservation"}}}
    return {
        "image": {"get_param": "image"},
        "flavor": {"get_param": "flavor"},
        "key_name": {"get_param": "key"},
        **(hints if settings.reservation else {}),
        "user_data_format": "RAW",
        "user_data": {"list_join": ["", [head, heat_text.body(settings, master=master)]]},
    }


def _workers(settings: HeatSettings) -> dict[str, Any]:
    properties = {
        "name": _named("worker-%index%"),
        "networks": [{"network": _get("net"), "fixed_ip": worker_address("%index%")}],
        "security_groups": [_get("inside")],
        **_server(settings, master=False),
    }
    return {
        "workers": {
            "type": "OS::Heat::ResourceGroup",
            "depends_on": ["subnet", "interface"],
            "properties": {
                "count": settings.workers,
                "resource_def": {"type": "OS::Nova::Server", "properties": properties},
            },
        }
    }


def _master(settings: HeatSettings) -> dict[str, Any]:
    return {
        "port": {
            "type": "OS::Neutron::Port",
            "properties": {
                "network": _get("net"),
                "fixed_ips": [{"subnet": _get("subnet"), "ip_address": MASTER}],
                "security_groups": [_get("inside"), _get("ssh")],
            },
        },
        "address": {
            "type": "OS::Neutron::FloatingIP",
            "depends_on": "interface",
            "properties": {"floating_network": {"get_param": "network"}, "port_id": _get("port")},
        },
        "master": {
            "type": "OS::Nova::Server",
            "depends_on": "interface",
            "properties": {
                "name": _named("master"),
                "networks": [{"port": _get("port")}],
                **_server(settings, master=True),
            },
        },
    }


def _waits(settings: HeatSettings) -> dict[str, Any]:
    """What Heat waits for: the master's key, workers that have installed, the job."""
    made: dict[str, Any] = {}
    counts = {"key": 1, "worker": settings.workers, "master": 1}
    for name, count in counts.items():
        if count:
            made[f"{name}_signal"] = {"type": "OS::Heat::WaitConditionHandle"}
            made[f"{name}_state"] = {
                "type": "OS::Heat::WaitCondition",
                "depends_on": "workers" if name == "worker" else "master",
                "properties": {
                    "handle": _get(f"{name}_signal"),
                    "count": count,
                    "timeout": 60 * settings.timeout,
                },
            }
    return made


def _outputs(settings: HeatSettings) -> dict[str, Any]:
    def command(before: str, after: str) -> dict[str, Any]:
        address = _get("address", "floating_ip_address")
        return {"value": {"list_join": ["", [f"{before}{settings.login}@", address, after]]}}

    return {
        "address": {"value": _get("address", "floating_ip_address")},
        "login": command("ssh ", ""),
        "state": command("ssh ", f" cat {TOLD}/state"),
        "log": command("ssh ", f" tail -f {TOLD}/log"),
        "records": command("scp -r ", f":{HOME}/job/results ."),
        **({"told": {"value": _get("master_state", "data")}} if settings.signals else {}),
    }
