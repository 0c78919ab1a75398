"""The resources of a stack, as a template of Heat (HOT)."""

from __future__ import annotations

from typing import Any

import yaml

from gnn_core.deploy import heat_text
from gnn_core.deploy.heat_text import HOME, MASTER, NETWORK, TOLD, worker_address

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


def write(template: dict[str, Any]) -> str:
    """The template as YAML."""
    text: str = yaml.dump(template, Dumper=_Writer, sort_keys=False, width=100)
    return text


def make_template(
    *,
    description: str,
    defaults: dict[str, str],
    worker: str,
    master: str,
    workers: int,
    reserved: bool,
    signals: bool,
    seconds: int,
    login: str,
) -> dict[str, Any]:
    """The template.

    Args:
        description: of the stack, one line.
        defaults: of the parameters: image, flavor, key, network, ssh_from and reservation.
        worker: script of each worker, but for its head.
        master: script of the master, but for its head.
        workers: machines besides the master.
        reserved: whether the machines are of a reservation (Blazar).
        signals: whether Heat waits for what the machines tell.
        seconds: for which Heat waits.
        login: user of the image.
    """
    resources = {
        **_network(),
        **_security(),
        "keys": {
            "type": "OS::Nova::KeyPair",
            "properties": {"name": _named("between-machines"), "save_private_key": True},
        },
        **(_workers(worker, workers, reserved, signals) if workers else {}),
        **_master(master, reserved, signals),
        **(_waits(workers, seconds) if signals else {}),
    }
    return {
        "heat_template_version": _VERSION,
        "description": description,
        "parameters": _parameters(defaults),
        "resources": resources,
        "outputs": _outputs(login, signals),
    }


def _get(resource: str, attribute: str = "") -> dict[str, Any]:
    return {"get_attr": [resource, attribute]} if attribute else {"get_resource": resource}


def _named(what: str) -> dict[str, Any]:
    return {"list_join": ["-", [{"get_param": "OS::stack_name"}, what]]}


def _parameters(defaults: dict[str, str]) -> dict[str, Any]:
    return {
        name: {
            "type": "string",
            "default": value,
            **({"constraints": [{"custom_constraint": _CLOUD[name]}]} if name in _CLOUD else {}),
        }
        for name, value in defaults.items()
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


def _server(script: str, reserved: bool, signals: bool, *, master: bool) -> dict[str, Any]:
    """What the machines have in common."""
    given = {"@PUBLIC_KEY@": _get("keys", "public_key")}
    if master:
        given["@PRIVATE_KEY@"] = _get("keys", "private_key")
    if signals:
        given["@SIGNAL@"] = _get("master_signal" if master else "worker_signal", "curl_cli")
    head = {"str_replace": {"template": heat_text.head(signals, master), "params": given}}
    hints = {"scheduler_hints": {"reservation": {"get_param": "reservation"}}}
    return {
        "image": {"get_param": "image"},
        "flavor": {"get_param": "flavor"},
        "key_name": {"get_param": "key"},
        **(hints if reserved else {}),
        "user_data_format": "RAW",
        "user_data": {"list_join": ["", [head, script]]},
    }


def _workers(script: str, count: int, reserved: bool, signals: bool) -> dict[str, Any]:
    properties = {
        "name": _named("worker-%index%"),
        "networks": [{"network": _get("net"), "fixed_ip": worker_address("%index%")}],
        "security_groups": [_get("inside")],
        **_server(script, reserved, signals, master=False),
    }
    return {
        "workers": {
            "type": "OS::Heat::ResourceGroup",
            "depends_on": ["subnet", "interface"],
            "properties": {
                "count": count,
                "resource_def": {"type": "OS::Nova::Server", "properties": properties},
            },
        }
    }


def _master(script: str, reserved: bool, signals: bool) -> dict[str, Any]:
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
                **_server(script, reserved, signals, master=True),
            },
        },
    }


def _waits(workers: int, seconds: int) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for role, server, count in (("worker", "workers", workers), ("master", "master", 1)):
        if count:
            made[f"{role}_signal"] = {"type": "OS::Heat::WaitConditionHandle"}
            made[f"{role}_state"] = {
                "type": "OS::Heat::WaitCondition",
                "depends_on": server,
                "properties": {
                    "handle": _get(f"{role}_signal"),
                    "count": count,
                    "timeout": seconds,
                },
            }
    return made


def _outputs(login: str, signals: bool) -> dict[str, Any]:
    def command(before: str, after: str) -> dict[str, Any]:
        address = _get("address", "floating_ip_address")
        return {"value": {"list_join": ["", [f"{before}{login}@", address, after]]}}

    return {
        "address": {"value": _get("address", "floating_ip_address")},
        "login": command("ssh ", ""),
        "state": command("ssh ", f" cat {TOLD}/state"),
        "log": command("ssh ", f" tail -f {TOLD}/log"),
        "records": command("scp -r ", f":{HOME}/job/results ."),
        **({"told": {"value": _get("master_state", "data")}} if signals else {}),
    }
