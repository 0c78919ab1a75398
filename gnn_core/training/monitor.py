"""RankMonitor: while a rank waits for the others, who has come, who is busy, who comes no more.

A thread of every rank answers the others, by a datagram of UDP, how many collectives its main
thread has begun, and whether it has computed, read or written lately. Asked are the ranks that a
main thread has waited for, for some seconds; a training step costs two assignments. A rank that
computes is waited for, however long it takes, and named meanwhile. One that is stopped, answers no
more, or does nothing at all ends the wait after `--collective-timeout` seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gnn_core.measure.machine import host_name
from gnn_core.network import addresses, datagram_socket, family_address, reachable
from gnn_core.training.other_rank import OtherRank
from gnn_core.training.process_state import place_of_main_thread, same_processes, stat_of, work_done

FIRST_LOOK_SECONDS = 3.0  # of a wait, until the others are asked
_FIRST_WORD_SECONDS = 10.0  # until it is printed who is waited for; then after twice as long
_TICK_SECONDS = 1.0
_GONE_SECONDS = 10.0  # after a process has ended: framework or launcher may report it first
_ALL_HERE = 10  # times as long, where all have come: what they send may be much
_MOST_NAMES = 8  # in a message
_UNPICKED_SECONDS = 5.0  # in which the main thread may end the wait itself
_GREETINGS = 5  # looks, in which those are asked that have never answered: can they at all?
_LONG_PAUSE_SECONDS = 10.0  # between two looks: this process itself did not run


class RankMonitor(threading.Thread):
    """Watches the waits of this rank's main thread, and answers for it.

    Args:
        rank: of this process.
        timeout_seconds: `--collective-timeout`.
        helpers: threads of a library that work while the main thread of another rank waits.
        computes_in_waits: whether a wait is one call with what is computed around it.
    """

    def __init__(
        self,
        rank: int,
        timeout_seconds: float,
        helpers: Iterable[int] = (),
        computes_in_waits: bool = False,
    ):
        super().__init__(name="rank monitor", daemon=True)
        self.timeout_seconds = timeout_seconds
        self.verdict: str | None = None  # why the present wait is in vain
        self.failure: str | None = None  # of another rank, as it has told
        self.last_words: Callable[[str], None] | None = None  # when the main thread cannot end it
        self.ends_stopped = False  # whether a stopped rank of this host is killed
        self._rank, self._helpers = rank, frozenset(helpers)
        self._computes_in_waits = computes_in_waits
        self._begun = 0  # collectives
        self._computes = False  # in the present wait
        self._since: float | None = None  # the main thread waits
        self._awake_since = self._looked_at = time.monotonic()
        self._judged_at = 0.0
        self._exit_by: float | None = None
        self._word_after = _FIRST_WORD_SECONDS
        self._others: dict[int, OtherRank] = {}
        self._token = secrets.token_hex(8)
        self._closed = False
        self._looks = 0
        self._socket = datagram_socket()
        self._socket.settimeout(_TICK_SECONDS)

    def card(self) -> dict[str, Any]:
        """What the other ranks have to know of this one, JSON-able."""
        own = stat_of(os.getpid())
        return {
            "host": host_name(),
            "pid": os.getpid(),
            "started": own.started if own else 0,
            "processes": same_processes(),
            "port": self._socket.getsockname()[1],
            "addresses": addresses(),
            "token": self._token,
        }

    def watch(self, cards: Sequence[dict[str, Any]]) -> None:
        """Begin, with the cards of all ranks in order."""
        self._token = cards[0]["token"]
        mine = cards[self._rank]
        for rank, card in enumerate(cards):
            if rank != self._rank:
                local = card["host"] == mine["host"] and card["processes"] == mine["processes"]
                address = "127.0.0.1" if local else reachable(card["addresses"], mine["addresses"])
                at = family_address(self._socket, address or card["host"], card["port"])
                self._others[rank] = OtherRank(rank, card, at, local and bool(card["processes"]))
        if self._others:
            self.start()

    # --- called by the main thread --------------------------------------------------------------

    def begin(self, computes: bool = False) -> None:
        """The main thread begins a collective, and has nothing to do but wait.

        `computes`: another thread of this process works for it in the meantime.
        """
        self._begun += 1
        self._computes = computes
        self.verdict = None
        self._since = time.monotonic()

    def end(self) -> None:
        """The wait is over."""
        self._since = None

    def waits_since(self) -> float | None:
        """When the present wait has begun, on `time.monotonic`'s clock; None outside of one."""
        return self._since

    def tell_failure(self, reason: str) -> None:
        """Tell the other ranks why this one ends: its launcher only knows its exit code."""
        message = {"token": self._token, "asks": False, "rank": self._rank, "failed": reason[:1000]}
        self._send(message, self._others.values())

    def leave_out(self, threads: Iterable[int]) -> None:
        """Leave out the work of these threads, too: they go on while the main thread stands."""
        self._helpers |= frozenset(threads)

    def close(self) -> None:
        """Watch and answer no more."""
        self._closed = True

    def exit_in_time(self) -> None:
        """This process ends from now on, for which it needs the others: bound that, too."""
        self._exit_by = time.monotonic() + self.timeout_seconds

    # --- in the thread --------------------------------------------------------------------------

    def run(self) -> None:
        """Answer, and look after the main thread every second."""
        while not self._closed:
            try:
                data, sender = self._socket.recvfrom(4096)
                self._hear(data, sender)
            except TimeoutError:
                pass
            except OSError:  # such as that nobody listens where this rank has asked
                time.sleep(0.01)
            if time.monotonic() - self._looked_at >= _TICK_SECONDS:
                self._look()

    def _hear(self, data: bytes, sender: Any) -> None:
        try:
            message = json.loads(data)
            if message["token"] != self._token:
                return
            if message["asks"]:
                self._socket.sendto(json.dumps(self._answer()).encode(), sender)
            elif (other := self._others.get(message["rank"])) is None:
                return
            elif "failed" in message:
                self.failure = f"{other} failed: {message['failed']}"
            else:
                other.hear(message, time.monotonic())
        except (ValueError, TypeError, KeyError):  # a stranger's
            return

    def _answer(self) -> dict[str, Any]:
        seconds, moved, disk = work_done(self._helpers)
        long_wait, where = place_of_main_thread()
        return {
            "token": self._token,
            "asks": False,
            "rank": self._rank,
            "begun": self._begun,
            "waits": self._since is not None and not (self._computes_in_waits or self._computes),
            "cpu_seconds": seconds,
            "bytes": moved,
            "disk": disk,
            "long_wait": long_wait,
            "where": where,
        }

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked_at > _LONG_PAUSE_SECONDS:  # stopped, or asleep with the machine
            self._awake_since = now
        self._looked_at = now
        self._looks += 1
        if self._looks <= _GREETINGS:
            self._ask([other for other in self._others.values() if not other.is_known])
        since = self._since
        if self._exit_by is not None and now > self._exit_by:
            self._exit("the other ranks do not part from this one")
        if since is None or now - since < FIRST_LOOK_SECONDS:
            self.verdict, self._word_after = None, _FIRST_WORD_SECONDS
            return
        if self.verdict is not None:
            if now - self._judged_at > _UNPICKED_SECONDS:
                self._exit(self.verdict)
            return
        late = [other for other in self._others.values() if other.begun < self._begun]
        suspects = late or list(self._others.values())  # one that has come may have stopped since
        for other in suspects:
            other.look(now)
        self._ask(suspects)
        limit = self.timeout_seconds if late else _ALL_HERE * self.timeout_seconds
        lost = self._lost(suspects, limit, max(since, self._awake_since), now)
        if not lost:
            self._say(late, now, now - since)
        elif self._since == since:  # not another wait by now
            reason = "; ".join(f"{one} {one.doing(now)}" for one in lost)
            if self.ends_stopped and any([other.end_if_stopped() for other in lost]):
                sys.stderr.write(f"lost       {reason}: it is killed, the others go on\n")
                return  # the collective ends with an error
            self._judged_at = now
            self.verdict = (
                f"{reason}; nothing came for {now - since:.0f} s (--collective-timeout "
                f"{self.timeout_seconds:g}); start all again, with --resume to go on from the last "
                "checkpoint"
            )

    def _ask(self, others: Iterable[OtherRank]) -> None:
        self._send({"token": self._token, "asks": True}, others)

    def _send(self, message: dict[str, Any], others: Iterable[OtherRank]) -> None:
        data = json.dumps(message).encode()
        for other in others:
            with contextlib.suppress(OSError):  # no way to its host just now
                self._socket.sendto(data, other.at)

    def _lost(
        self, suspects: Sequence[OtherRank], idle_limit: float, since: float, now: float
    ) -> list[OtherRank]:
        """The ranks that will not come; none where the wait may have an end."""
        limit = self.timeout_seconds
        lost = [one for one in suspects if one.lost_for(since, now) > one.patience(limit)]
        lost += [one for one in suspects if one.gone_for(now) > min(limit, _GONE_SECONDS)]
        if not lost and all(
            one.answers(now) and one.idle_for(since, now) > idle_limit for one in suspects
        ):
            lost = list(suspects)
        return list(dict.fromkeys(lost))

    def _say(self, late: Sequence[OtherRank], now: float, waited: float) -> None:
        """Print who is waited for: the first of the ranks that wait does."""
        numbers = {other.rank for other in late}
        first = all(rank in numbers for rank in range(self._rank))
        if waited < self._word_after or not late or not first:
            return
        self._word_after *= 2
        who = ", ".join(f"{other}: {other.doing(now)}" for other in late[:_MOST_NAMES])
        more = f", and {len(late) - _MOST_NAMES} more" if len(late) > _MOST_NAMES else ""
        print(f"waiting    for {who}{more}", flush=True)

    def _exit(self, reason: str) -> None:
        """End the process, whose main thread waits where no exception reaches it."""
        sys.stderr.write(f"rank {self._rank} failed: {reason}\n")
        sys.stderr.flush()
        if self.last_words is not None and self._exit_by is None:
            self.last_words(reason)
        sys.stdout.flush()
        os._exit(1)
