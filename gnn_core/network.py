"""Networks of this host: its addresses, which of them another host reaches, and no proxy between.

What ranks send each other goes from host to host, by IPv4 or IPv6, never through a proxy.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterable, Sequence
from typing import Any

_NO_PROXY = ("no_proxy", "NO_PROXY")


def addresses() -> list[str]:
    """Addresses of this host with their networks, such as 10.0.0.7/24: IPv4, then IPv6.

    Those that only this host or this cable reaches, loopback and link-local, are left out.
    """
    import psutil  # here, since one process alone asks nothing and need not load it

    up = psutil.net_if_stats()
    found = [
        ipaddress.ip_interface(f"{address.address}/{_prefix(address.netmask)}")
        for name, several in psutil.net_if_addrs().items()
        for address in several
        if address.family in (socket.AF_INET, socket.AF_INET6)
        if address.netmask and "%" not in address.address and up[name].isup
    ]
    far = [one for one in found if not one.is_loopback and not _is_of_one_cable(one)]
    return [str(one) for one in sorted(far, key=lambda one: one.version)]


def _is_of_one_cable(address: ipaddress.IPv4Interface | ipaddress.IPv6Interface) -> bool:
    """Whether a host reaches it only by naming an interface."""
    return address.version == 6 and address.is_link_local


def _prefix(netmask: str) -> str:
    """A netmask as `ipaddress` takes it: that of IPv6 is a number of bits."""
    if ":" not in netmask:
        return netmask
    return str(int(ipaddress.IPv6Address(netmask)).bit_count())


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
    """The name of the interface from which this host reaches another; None if unknown."""
    import psutil

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


def host_and_port(host: str, port: int) -> str:
    """As URLs have them: an address of IPv6 stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def open_listener(port: int) -> socket.socket:
    """Listen at a port of every address of this host, of IPv4 and IPv6; 0 takes a free one.

    Raises OSError, such as that the port is taken.
    """
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def datagram_socket() -> socket.socket:
    """A socket for datagrams to and from hosts of IPv4 and, where the kernel has it, IPv6."""
    if socket.has_dualstack_ipv6():
        made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    else:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("", 0))
    return made


def family_address(sock: socket.socket, host: str, port: int) -> tuple[Any, ...]:
    """Where a socket of `datagram_socket` reaches a host: IPv4 is mapped into IPv6."""
    if sock.family == socket.AF_INET6 and _is_ipv4(host):
        return (f"::ffff:{host}", port)
    return (host, port)


def _is_ipv4(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 4
    except ValueError:
        return False


def bypass_proxies(hosts: Iterable[str]) -> None:
    """Let libraries of this process reach these hosts themselves, whatever `http_proxy` says.

    Call it before a library that reads the variables is imported. Downloads keep their proxy.
    """
    bare = {host.strip("[]") for host in hosts}
    before = dict(os.environ)
    for name in (*_NO_PROXY, "no_grpc_proxy"):  # of Python and others; of gRPC
        inherited = next((before[other] for other in (name, *_NO_PROXY) if before.get(other)), "")
        kept = [part.strip() for part in inherited.split(",") if part.strip()]
        os.environ[name] = ",".join([*kept, *sorted(bare - set(kept))])
