"""What was opened inside is known, shut and watched; what was open before is left alone."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from gnn_core.sockets import OpenedSockets

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc of Linux")


def connected(server: socket.socket) -> tuple[socket.socket, socket.socket]:
    here = socket.create_connection(server.getsockname())
    there, _ = server.accept()
    there.settimeout(10)
    return here, there


def test_the_other_side_notices_that_it_was_shut() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        before, before_there = connected(server)
        opened = OpenedSockets()
        with opened:
            inside, inside_there = connected(server)
        opened.shut()
        with inside, inside_there, before, before_there:
            assert inside_there.recv(1) == b""
            before.sendall(b"x")
            assert before_there.recv(1) == b"x", "another connection goes on"


def test_what_was_closed_meanwhile_is_not_mistaken_for_another() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        opened = OpenedSockets()
        with opened:
            inside, inside_there = connected(server)
        descriptors = {inside.fileno(), inside_there.fileno()}
        inside.close()
        inside_there.close()
        later, later_there = connected(server)
        with later, later_there:
            assert {later.fileno(), later_there.fileno()} == descriptors, "they have their numbers"
            opened.shut()
            later.sendall(b"x")
            assert later_there.recv(1) == b"x"


def test_silence_is_missed_in_time() -> None:
    opened = OpenedSockets()
    with socket.create_server(("127.0.0.1", 0)) as server, opened:
        inside, there = connected(server)
    opened.miss_after(20)
    with inside, there:
        tcp = socket.IPPROTO_TCP
        assert inside.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        idle, pause, probes = (
            inside.getsockopt(tcp, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        assert idle + pause * probes == 20
        assert inside.getsockopt(tcp, socket.TCP_USER_TIMEOUT) == 20_000
