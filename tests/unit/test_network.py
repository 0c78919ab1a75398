"""Which address of a host another one reaches, and by which interface."""

from __future__ import annotations

import psutil
import pytest

from gnn_core.network import addresses, interface_towards, reachable

# Addresses of a host and of the one that wants to reach it -> where it does.
REACHABLE = {
    "one network": (["10.0.0.7/24"], ["10.0.0.1/24"], "10.0.0.7"),
    "the second is shared": (["172.17.0.1/16", "10.0.0.7/24"], ["10.0.0.1/24"], "10.0.0.7"),
    "dotted masks": (["192.168.1.5/255.255.255.0"], ["192.168.1.9/255.255.255.0"], "192.168.1.5"),
    "routed": (["10.1.0.7/24", "10.2.0.7/24"], ["10.0.0.1/24"], "10.1.0.7"),
    "both shared": (
        ["10.1.0.7/24", "10.2.0.7/24"], ["10.2.0.1/24", "10.1.0.1/24"], "10.1.0.7",
    ),
    "a host without a network": ([], ["10.0.0.1/24"], None),
}  # fmt: skip


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
