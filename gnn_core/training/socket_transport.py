"""SocketTransport: rows over plain TCP, for ranks whose framework has no alltoall for threads.

Keras workers use it: the collectives of tf.distribute are sums, and belong to the main thread.
"""

from __future__ import annotations

import contextlib
import secrets
import selectors
import socket
import time
from dataclasses import dataclass

import numpy as np

from gnn_core.data.exchange import Bytes, GivenUp, IntArray, Transport
from gnn_core.network import addresses, open_listener, reachable
from gnn_core.training.world import World
from gnn_core.usage import Lost, UsageError

_TOKEN_BYTES = 16
_SLICE_SECONDS = 0.1  # of a wait
_GREETING_SECONDS = 5.0  # in which one that connects says who it is


@dataclass
class _Peer:
    """What is still to be sent to a rank and to come from it."""

    rank: int
    out: memoryview
    into: memoryview


class SocketTransport(Transport):
    """A connection between each two ranks. Collective.

    Args:
        world: the ranks.
        seconds: how long connecting may take.

    Raises:
        UsageError: two ranks do not reach each other, on every rank.
    """

    name = "TCP"

    def __init__(self, world: World, seconds: float):
        super().__init__(world.rank, world.world_size)
        with contextlib.ExitStack() as held, world.errors_on_all_ranks():
            listener = held.enter_context(open_listener(0))
            card = {
                "host": world.rank_hosts[world.rank],
                "addresses": addresses(),
                "port": listener.getsockname()[1],
                "token": secrets.token_hex(_TOKEN_BYTES),
            }
            cards = world.gather(card)
            self._connections = self._connect(cards, listener, time.monotonic() + seconds)
        for connection in self._connections.values():
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setblocking(False)

    def alltoall(self, rows: Bytes, sent: IntArray, received: IntArray) -> Bytes:
        """See `Transport`."""
        width = rows.shape[1]
        found = np.empty((int(received.sum()), width), np.uint8)
        ends, their_ends = np.cumsum(sent), np.cumsum(received)
        own = self.rank
        found[their_ends[own] - received[own] : their_ends[own]] = rows[
            ends[own] - sent[own] : ends[own]
        ]
        with selectors.DefaultSelector() as waiting:
            for rank, connection in self._connections.items():
                out = rows[ends[rank] - sent[rank] : ends[rank]].reshape(-1).data
                theirs = slice(their_ends[rank] - received[rank], their_ends[rank])
                into = found[theirs].reshape(-1).data
                _watch(waiting, connection, _Peer(rank, out, into))
            while waiting.get_map():
                for key, events in waiting.select(_SLICE_SECONDS):
                    self._move(waiting, key, events)
                if self.given_up:
                    raise GivenUp
        return found

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections.values():
            connection.close()

    def _move(
        self, waiting: selectors.BaseSelector, key: selectors.SelectorKey, events: int
    ) -> None:
        peer, connection = key.data, key.fileobj
        assert isinstance(connection, socket.socket)
        try:
            if events & selectors.EVENT_WRITE:
                peer.out = peer.out[connection.send(peer.out) :]
            if events & selectors.EVENT_READ:
                count = connection.recv_into(peer.into)
                if not count:
                    raise ConnectionResetError("its connection is closed")
                peer.into = peer.into[count:]
        except BlockingIOError:
            return
        except OSError as error:
            raise Lost(
                f"rank {peer.rank} answers no more ({error}); start all again, with --resume to "
                "go on from the last checkpoint"
            ) from None
        waiting.unregister(connection)
        _watch(waiting, connection, peer)

    def _connect(
        self, cards: list[dict], listener: socket.socket, deadline: float
    ) -> dict[int, socket.socket]:
        """A connection to each other rank: to those before this one, from those after it."""
        found = {}
        mine = cards[self.rank]
        for rank, card in enumerate(cards[: self.rank]):
            local = card["host"] == mine["host"]
            address = "127.0.0.1" if local else reachable(card["addresses"], mine["addresses"])
            try:
                left = max(1.0, deadline - time.monotonic())
                connection = socket.create_connection((address, card["port"]), timeout=left)
                connection.sendall(bytes.fromhex(card["token"]) + self.rank.to_bytes(4, "big"))
            except OSError as error:
                raise _unreached(rank, str(error)) from None
            found[rank] = connection
        token = bytes.fromhex(mine["token"])
        while missing := [one for one in range(self.rank + 1, len(cards)) if one not in found]:
            listener.settimeout(max(0.1, deadline - time.monotonic()))
            try:
                guest, _ = listener.accept()
            except TimeoutError:
                raise _unreached(missing[0], "it does not connect") from None
            guest.settimeout(_GREETING_SECONDS)
            with contextlib.suppress(OSError):
                greeting = guest.recv(_TOKEN_BYTES + 4, socket.MSG_WAITALL)
                rank = int.from_bytes(greeting[_TOKEN_BYTES:], "big")
                if secrets.compare_digest(greeting[:_TOKEN_BYTES], token) and rank in missing:
                    found[rank] = guest
                    continue
            guest.close()  # a port scanner or a health check
        return found


def _watch(waiting: selectors.BaseSelector, connection: socket.socket, peer: _Peer) -> None:
    """Wait for what is left to send and to come; nothing, if nothing is."""
    events = selectors.EVENT_WRITE * bool(peer.out) + selectors.EVENT_READ * bool(peer.into)
    if events:
        waiting.register(connection, events, peer)


def _unreached(rank: int, reason: str) -> UsageError:
    return UsageError(
        f"--partitions: expected a connection to rank {rank}, and {reason}; open the ports between "
        "the hosts"
    )
