"""Networks of this host: its addresses, and which of them another host reaches."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

import psutil


def addresses() -> list[str]:
    """IPv4 addresses of this host with their networks, such as 10.0.0.7/24, loopback left out."""
    up = psutil.net_if_stats()
    return [
        f"{address.address}/{address.netmask}"
        for name, found in psutil.net_if_addrs().items()
        for address in found
        if address.family == socket.AF_INET and address.netmask and up[name].isup
        if not ipaddress.ip_address(address.address).is_loopback
    ]


def reachable(theirs: Sequence[str], mine: Sequence[str]) -> str | None:
    """Of the `addresses` of a host the one in a network that `mine` are in too, else the first.

    None where it has no address.
    """
    shared = {ipaddress.ip_interface(address).network for address in mine}
    for address in theirs:
        if ipaddress.ip_interface(address).network in shared:
            return str(ipaddress.ip_interface(address).ip)
    return str(ipaddress.ip_interface(theirs[0]).ip) if theirs else None


def interface_towards(host: str) -> str | None:
    """The name of the interface from which this host reaches another; None if that is not told."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)  # sends nothing: the kernel looks up the way
            mine = str(probe.getsockname()[0])
    except OSError:
        return None
    for name, found in psutil.net_if_addrs().items():
        if mine in [address.address.partition("%")[0] for address in found]:
            return str(name)
    return None
