"""Create a stack in Heat's own engine: PYTHON heat_engine.py NAME=VALUE... < TEMPLATE; prints JSON.

Parameters are given as NAME=VALUE. Runs in an environment of its own, which has `openstack-heat`
and nothing of this project.

Heat's own are: reading and validation of the template, parameters, functions, dependencies and
their order, the group of workers with its nested stack, wait conditions with their handles and
signals, outputs, the database (SQLite in memory).

Stand-ins: a resource of Nova or Neutron is created by writing down its properties; the names of the
cloud are those of CLOUD; Keystone gives a token; the nested stack is created by a call, not by way
of the message queue; and the machines signal as soon as they are created, SUCCESS or, the master
for `fail=REASON`, FAILURE.
"""

from __future__ import annotations

import json
import sys
import warnings
from unittest import mock

warnings.filterwarnings("ignore")

from heat.common import context, exception, messaging, template_format  # noqa: E402
from heat.db import api as db_api  # noqa: E402
from heat.db import models  # noqa: E402
from heat.engine import clients, constraints, environment, resource, resources, scheduler  # noqa: E402
from heat.engine import stack as engine_stack  # noqa: E402
from heat.engine import template as engine_template  # noqa: E402
from heat.engine.clients.os import glance, neutron, nova  # noqa: E402
from heat.engine.resources import stack_resource, stack_user  # noqa: E402
from heat.engine.resources.openstack.heat import wait_condition_handle  # noqa: E402
from keystoneauth1 import session  # noqa: E402
from oslo_config import cfg  # noqa: E402
from oslo_db import options  # noqa: E402

CLOUD = ("CC-Ubuntu24.04", "m1.large", "mine", "public")
KEY = "ssh-ed25519 AAAAC3/+x= ringsage"
FAKED = (
    "OS::Nova::Server",
    "OS::Neutron::Net",
    "OS::Neutron::Subnet",
    "OS::Neutron::Router",
    "OS::Neutron::RouterInterface",
    "OS::Neutron::SecurityGroup",
    "OS::Neutron::Port",
    "OS::Neutron::FloatingIP",
)
ATTRIBUTES = {"floating_ip_address": "203.0.113.7"}


class Cloud:
    """What is there beside the engine."""

    def __init__(self, failure: str | None):
        self.failure = failure
        self.created: list[dict] = []
        self.stack: engine_stack.Stack | None = None

    def create(self, one: resource.Resource) -> None:
        """Create a resource; a machine does what it has to, and signals."""
        values = {name: one.properties[name] for name in one.properties_schema}
        values = {name: value for name, value in values.items() if value is not None}
        kind = one.type()
        self.created.append({"name": one.name, "type": kind, "properties": values})
        one.resource_id_set(f"id-{one.name}")
        if kind == "OS::Nova::Server" and "master_signal" in self.stack:
            self.signal(one)

    def signal(self, machine: resource.Resource) -> None:
        """Signal as the scripts do, by way of the resource's own method."""
        if machine.name != "master":
            name = machine.properties["name"]
            self._send("worker_signal", id=name, status="SUCCESS", data="installed")
            return
        self._send("key_signal", id="master", status="SUCCESS", data=KEY)
        status = "FAILURE" if self.failure else "SUCCESS"
        self._send("master_signal", id="master", status=status, data=self.failure or "done")

    def _send(self, handle: str, **content: str) -> None:
        self.stack[handle].signal({**content, "reason": content["data"]})

    def create_nested(self, cnxt: context.RequestContext, **given: object) -> dict:
        """What the engine does with the call `_create_stack` that comes over the queue."""
        own = context.RequestContext.from_dict(cnxt.to_dict())  # with a database session of its own
        nested = engine_stack.Stack(
            own,
            given["stack_name"],
            engine_template.Template.load(own, given["template_id"]),
            owner_id=given["owner_id"],
            user_creds_id=given["user_creds_id"],
            stack_user_project_id=given["stack_user_project_id"],
            nested_depth=given["nested_depth"],
            parent_resource=given["parent_resource_name"],
            timeout_mins=given["args"]["timeout_mins"],
            convergence=False,
        )
        nested.validate()
        nested.store()
        nested.create()
        nested.persist_state_and_release_lock("engine")
        return dict(nested.identifier())


def _begin() -> None:
    """Set the engine up, with a database in memory."""
    cfg.CONF(args=[], project="heat", default_config_files=[])
    cfg.CONF.set_override("deferred_auth_method", "password")
    cfg.CONF.set_override("error_wait_time", 0)  # seconds for other resources, after one has failed
    options.set_defaults(cfg.CONF, connection="sqlite://")
    models.BASE.metadata.create_all(db_api.get_engine())
    messaging.setup("fake://", optional=True)
    resources.initialise()
    scheduler.ENABLE_SLEEP = False  # between looks at what is being created


def _replace_the_cloud(cloud: Cloud) -> None:
    resource.Resource.is_service_available = classmethod(lambda cls, context: (True, None))
    clients.client_plugin.ClientPlugin.client = lambda self, version=None: mock.MagicMock()
    constraints.BaseCustomConstraint.validate = lambda self, value, context, template=None: (
        value in CLOUD or value.startswith("id-")
    )
    limits = {"maxServerMeta": 128, "maxPersonality": 5, "maxPersonalitySize": 10240}
    nova.NovaClientPlugin.absolute_limits = lambda self: limits
    nova.NovaClientPlugin.find_flavor_by_name_or_id = lambda self, name: name
    glance.GlanceClientPlugin.find_image_by_name_or_id = lambda self, name: name
    neutron.NeutronClientPlugin.find_resourceid_by_name_or_id = (
        lambda self, kind, name, cmd_resource=None: name
    )
    nova.NovaClientPlugin.get_max_microversion = lambda self: "2.95"  # of a cloud of today
    nova.NovaClientPlugin.is_version_supported = lambda self, version: True
    neutron.NeutronClientPlugin.network_id_from_subnet_id = lambda self, name: "id-net"
    session.Session.request = _unexpected
    neutron.NeutronClientPlugin.get_secgroup_uuids = lambda self, names, *more, **named: [*names]
    engine_stack.Stack.create_stack_user_project_id = lambda self: None
    stack_user.StackUser._create_user = lambda self: self.data_set("user_id", f"user-{self.name}")
    stack_user.StackUser._user_token = lambda self: "t0ken"
    handle = wait_condition_handle.HeatWaitConditionHandle
    handle._get_resource_endpoint = lambda self: f"http://heat/{self.name}"
    rpc = mock.Mock(_create_stack=cloud.create_nested)
    stack_resource.StackResource.rpc_client = lambda self: rpc
    for name in FAKED:
        kind = resources.global_env().get_class(name)
        kind.handle_create = lambda self: cloud.create(self)
        kind.check_create_complete = lambda self, *more: True
        kind._resolve_attribute = lambda self, attribute: ATTRIBUTES.get(attribute)
        kind._show_resource = lambda self: {}


def _unexpected(self: object, url: str, *more: object, **named: object) -> None:
    raise SystemError(f"{url} was asked")


def main() -> None:
    """Validate and create; what came of it on stdout."""
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    cloud = Cloud(given.pop("fail", None))
    _begin()
    _replace_the_cloud(cloud)
    who = {"tenant": "t", "tenant_id": "t", "user": "u", "user_id": "u", "password": "p"}
    cnxt = context.RequestContext.from_dict(
        {**who, "roles": ["member"], "is_admin": False, "auth_token": "x", "trust_id": None}
    )
    read = engine_template.Template(
        template_format.parse(sys.stdin.read()), env=environment.Environment({"parameters": given})
    )
    stack = engine_stack.Stack(cnxt, "training", read, convergence=False, timeout_mins=60)
    try:
        stack.validate()
    except exception.HeatException as problem:
        print(json.dumps({"state": ["VALIDATE", "FAILED"], "reason": str(problem)}))
        return
    stack.store()
    cloud.stack = stack
    stack.create()
    outputs = {}
    if stack.status == stack.COMPLETE:
        stack._update_all_resource_data(for_resources=False, for_outputs=True)
        outputs = {name: one.get_value() for name, one in stack.outputs.items()}
    result = {"state": stack.state, "reason": stack.status_reason, "outputs": outputs, "key": KEY}
    print(json.dumps({**result, "created": cloud.created}, default=str))


if __name__ == "__main__":
    main()
