"""Which address of a host another one reaches, and by which interface."""

from __future__ import annotations

import os
import socket
from urllib import request

import psutil
import pytest

from gnn_core.network import (
    addresses,
    bypass_proxies,
    datagram_socket,
    family_address,
    host_and_port,
    interface_towards,
    open_listener,
    reachable,
)

# Addresses of a host and of the one that wants to reach it -> where it does.
REACHABLE = {
    "one network": (["10.0.0.7/24"], ["10.0.0.1/24"], "10.0.0.7"),
    "the second is shared": (["172.17.0.1/16", "10.0.0.7/24"], ["10.0.0.1/24"], "10.0.0.7"),
    "dotted masks": (["192.168.1.5/255.255.255.0"], ["192.168.1.9/255.255.255.0"], "192.168.1.5"),
    "routed": (["10.1.0.7/24", "10.2.0.7/24"], ["10.0.0.1/24"], "10.1.0.7"),
    "both shared": (["10.1.0.7/24", "10.2.0.7/24"], ["10.2.0.1/24", "10.1.0.1/24"], "10.1.0.7"),
    "a host without a network": ([], ["10.0.0.1/24"], None),
}


@pytest.mark.parametrize("case", REACHABLE)
def test_the_address_in_a_network_that_both_share(case: str) -> None:
    theirs, mine, expected = REACHABLE[case]
    assert reachable(theirs, mine) == expected


def test_addresses_are_of_networks_that_are_up() -> None:
    for address in addresses():
        assert not address.startswith("127.")
        assert reachable([address], [address]) == address.partition("/")[0]


def test_the_interface_of_an_own_address_is_its_own() -> None:
    for address in ["127.0.0.1", *(address.partition("/")[0] for address in addresses())]:
        name = interface_towards(address)
        assert name is not None
        assert address in [found.address for found in psutil.net_if_addrs()[name]]


def test_no_interface_leads_to_a_host_that_has_no_address() -> None:
    assert interface_towards("no-such-host.invalid") is None


def test_of_ipv4_and_ipv6_the_first_shared_network_counts() -> None:
    theirs = ["10.0.0.7/24", "fd00:1::7/64"]
    assert reachable(theirs, ["fd00:1::1/64"]) == "fd00:1::7"
    assert reachable(theirs, ["10.0.0.1/24", "fd00:1::1/64"]) == "10.0.0.7"
    assert host_and_port("fd00:1::7", 22) == "[fd00:1::7]:22"
    assert host_and_port("10.0.0.7", 22) == "10.0.0.7:22"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_door_is_open_to_ipv4_and_to_ipv6(host: str) -> None:
    if host == "::1" and not socket.has_dualstack_ipv6():
        pytest.skip("this kernel has no IPv6")
    with open_listener(0) as listener:
        port = listener.getsockname()[1]
        socket.create_connection((host, port), timeout=5).close()
    with datagram_socket() as one, datagram_socket() as two:
        one.sendto(b"here", family_address(one, host, two.getsockname()[1]))
        two.settimeout(5)
        assert two.recvfrom(10)[0] == b"here"


def test_hosts_of_the_job_are_reached_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("NO_PROXY", "intranet")
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:3128")
    bypass_proxies(["10.0.0.7", "[fd00:1::7]"])
    bypass_proxies(["10.0.0.7", "one"])
    for host in ("intranet", "10.0.0.7", "one"):
        assert request.proxy_bypass(host)
    assert not request.proxy_bypass("elsewhere.org")
    assert os.environ["no_grpc_proxy"] == "intranet,10.0.0.7,fd00:1::7,one"
