"""Calls between coordinator, servers and workers: gRPC with the messages of control.proto.

Every call has a deadline and carries the secret of the job. What the other side refuses is a
UsageError here; one that does not answer is Lost.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import grpc
from google.protobuf import message_factory
from google.protobuf.message import Message

from gnn_core.files import read_regular, reason
from gnn_core.network import host_and_port
from gnn_core.param_server import control_pb2
from gnn_core.usage import Lost, UsageError

SECRET_VARIABLE = "RINGSAGE_JOB_SECRET"
_KEY = "ringsage-secret"  # of the metadata of a call
_MOST_SECRET_BYTES = 4096
_THREADS = 256  # that answer; a worker that waits for work takes one
MOST_BYTES = 1 << 30
"""Of the arrays in a message: what a shard may have."""
_SLICE_SECONDS = 0.5  # of a wait for an answer; between two of them signals are handled
_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.so_reuseport", 0),  # a second coordinator at the same port is a mistake
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
]


def size_option(num_bytes: int) -> tuple[str, int]:
    """The channel or server option that lets messages of so many bytes of arrays in."""
    return ("grpc.max_receive_message_length", num_bytes + (1 << 20))


def methods_of(service: str) -> dict[str, tuple[type[Message], type[Message]]]:
    """Name -> (request, answer) of each method of a service in control.proto."""
    described = control_pb2.DESCRIPTOR.services_by_name[service]
    return {
        method.name: (
            message_factory.GetMessageClass(method.input_type),
            message_factory.GetMessageClass(method.output_type),
        )
        for method in described.methods
    }


def read_secret(file: str | None) -> str | None:
    """The secret of the job: of a file, `-` for a line of standard input, else of the environment.

    None where there is none. Raises UsageError for a file without one.
    """
    if file is None:
        return os.environ.get(SECRET_VARIABLE) or None
    if file == "-":
        text = sys.stdin.readline(_MOST_SECRET_BYTES)
    else:
        try:
            text = read_regular(Path(file), _MOST_SECRET_BYTES).decode("ascii", errors="replace")
        except OSError as error:
            raise UsageError(
                f"--secret-file {file}: expected a file, got an error: {reason(error)}"
            ) from None
    secret = text.strip()
    if not secret.isascii() or not secret.isprintable() or len(secret) < 16:
        raise UsageError(
            f"--secret-file {file}: expected a line of at least 16 printable ASCII characters, got "
            f"{len(secret)}: write one with `openssl rand -hex 16`"
        )
    return secret


class Service:
    """Answers the calls of one service of control.proto, in threads.

    Args:
        service: its name.
        handler: has a method of each name, in lower case: request -> answer. A UsageError or Lost
            that it raises is raised by the caller.
        host: address to listen at.
        port: 0 takes a free one.
        secret: of the job; a call without it is refused.
        most_bytes: of the arrays in a request.

    Raises:
        UsageError: nobody can listen there, such as where the port is taken.
    """

    def __init__(
        self, service: str, handler: Any, host: str, port: int, secret: str, most_bytes: int = 0
    ):
        pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="rpc")
        self._server = grpc.server(
            pool, options=[*_OPTIONS, size_option(most_bytes)], interceptors=[_SecretCheck(secret)]
        )
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    f"ringsage.{service}", _answers(service, handler)
                ),
            )
        )
        try:
            self.port = self._server.add_insecure_port(host_and_port(host, port))
        except RuntimeError:
            self.port = 0
        if not self.port:
            raise UsageError(
                f"expected a free port, got {host_and_port(host, port)}, which is taken or not of "
                "this host: another coordinator may run there; stop it or choose another port"
            )
        self.address = host_and_port(host, self.port)
        self._server.start()

    def stop(self, grace_seconds: float = 1.0) -> None:
        """Answer no more calls; those that are being answered have so long."""
        self._server.stop(grace_seconds).wait(grace_seconds + 1)


class Callee(Protocol):
    """Whoever answers calls: a `Peer`, or a service of this process."""

    def begin(self, method: str, request: Any) -> Any:
        """See `Peer`."""

    def finish(self, call: Any) -> Any:
        """See `Peer`."""


class Peer:
    """Another process, as it is called.

    Args:
        service: that it answers.
        address: host:port.
        secret: of the job.
        name: for messages, such as `the coordinator`.
        seconds: how long it may take to answer.
        most_bytes: of the arrays in an answer.
    """

    def __init__(
        self,
        service: str,
        address: str,
        secret: str,
        name: str,
        seconds: float,
        most_bytes: int = 0,
    ):
        self.address, self.name, self.seconds = address, name, seconds
        self._metadata = ((_KEY, secret),)
        self._channel = grpc.insecure_channel(address, options=[*_OPTIONS, size_option(most_bytes)])
        self._calls = {
            method: self._channel.unary_unary(
                f"/ringsage.{service}/{method}",
                request_serializer=request.SerializeToString,
                response_deserializer=answer.FromString,
            )
            for method, (request, answer) in methods_of(service).items()
        }

    def begin(self, method: str, request: Message, wait: bool = False) -> Any:
        """Call it; what `finish` takes. `wait`: until it is there, if it is not yet."""
        return self._calls[method].future(
            request, timeout=self.seconds, metadata=self._metadata, wait_for_ready=wait
        )

    def finish(self, call: Any, check: Callable[[], None] | None = None) -> Any:
        """The answer to a call. Raises UsageError or Lost.

        Args:
            call: of `begin`.
            check: called again and again meanwhile; may raise what ends the wait.
        """
        while True:
            try:
                return call.result(timeout=_SLICE_SECONDS)
            except grpc.FutureTimeoutError:
                if check is not None:
                    check()
            except grpc.FutureCancelledError:
                raise Lost(f"{self.name} at {self.address} answers no more") from None
            except grpc.RpcError as error:
                raise self._problem(error) from None

    def call(self, method: str, request: Message, wait: bool = False) -> Any:
        """The answer to a call. Raises UsageError or Lost."""
        return self.finish(self.begin(method, request, wait))

    def close(self) -> None:
        """End the connection."""
        self._channel.close()

    def _problem(self, error: Any) -> Exception:
        code, details = error.code(), error.details() or "no reason was given"
        if code == grpc.StatusCode.UNAUTHENTICATED:
            return UsageError(
                f"expected the secret of {self.name} at {self.address}, got another: set "
                f"{SECRET_VARIABLE} to that of the job, or name its file with --secret-file"
            )
        if code == grpc.StatusCode.FAILED_PRECONDITION:
            return UsageError(details)
        if code in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL):
            return UsageError(
                f"expected {self.name} of a parameter server of this version at {self.address}, "
                f"got another program ({details}): correct the address"
            )
        return Lost(f"{self.name} at {self.address} answers no more ({code.name.lower()})")


def answer_all(peers: Sequence[Callee], method: str, requests: Sequence[Any]) -> list[Any]:
    """Call all of them at the same time; their answers in order. Raises UsageError or Lost."""
    calls = [peer.begin(method, request) for peer, request in zip(peers, requests, strict=True)]
    return [peer.finish(call) for peer, call in zip(peers, calls, strict=True)]


def require_port(text: str, flag: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`; IPv6 in brackets. Raises UsageError."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 <= int(port) < 2**16:
        raise UsageError(f"{flag}: expected HOST:PORT, such as 10.0.0.7:7000, got {text!r}")
    return host, int(port)


def local_address(host: str) -> str:
    """The address of this host from which it reaches another one. Raises UsageError."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)  # sends nothing: the kernel looks up the way
            return str(probe.getsockname()[0])
    except OSError as error:
        raise UsageError(
            f"--coordinator: expected a host that is reached from here, got {host!r} "
            f"({error.strerror or error}): correct its name"
        ) from None


def end_with_parent() -> None:
    """End this process as soon as standard input ends, which the process that started it holds."""

    def watch() -> None:
        with contextlib.suppress(OSError, ValueError):
            while sys.stdin.read(4096):
                pass
        os._exit(1)

    threading.Thread(target=watch, name="parent watch", daemon=True).start()


class Heartbeat:
    """Tells the coordinator, in a thread, that this process is there.

    Args:
        coordinator: it.
        role: of this process.
        member: its number.
        seconds: from one word to the next.
        patience: seconds of silence of the coordinator after which `lost` is called.
        lost: called once, in the thread.
    """

    def __init__(
        self,
        coordinator: Peer,
        role: str,
        member: int,
        seconds: float,
        patience: float,
        lost: Callable[[], None],
    ):
        self._coordinator, self._lost = coordinator, lost
        self._request = control_pb2.BeatRequest(role=role, member=member)
        self._seconds, self._patience = seconds, patience
        self._closed = threading.Event()
        threading.Thread(target=self._run, name="heartbeat", daemon=True).start()

    def close(self) -> None:
        """End the thread."""
        self._closed.set()

    def _run(self) -> None:
        heard, wait = time.monotonic(), self._seconds
        while not self._closed.wait(wait):
            with contextlib.suppress(Lost, UsageError):
                self._coordinator.call("Beat", self._request)
                heard = time.monotonic()
            if time.monotonic() - heard > self._patience and not self._closed.is_set():
                self._lost()
                return


class _SecretCheck(grpc.ServerInterceptor):
    def __init__(self, secret: str):
        self._secret = secret.encode()

        def refuse(request: Any, context: Any) -> None:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "wrong secret")

        self._refusal = grpc.unary_unary_rpc_method_handler(refuse)

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        given = dict(details.invocation_metadata).get(_KEY, "")
        if isinstance(given, str) and hmac.compare_digest(given.encode(), self._secret):
            return continuation(details)
        return self._refusal


def _answers(service: str, handler: Any) -> dict[str, Any]:
    def guarded(method: str) -> Callable[[Any, Any], Any]:
        answer = getattr(handler, method.lower())

        def run(request: Any, context: Any) -> Any:
            try:
                return answer(request)
            except UsageError as error:
                return context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
            except Lost as error:
                return context.abort(grpc.StatusCode.UNAVAILABLE, str(error))

        return run

    return {
        method: grpc.unary_unary_rpc_method_handler(
            guarded(method),
            request_deserializer=request.FromString,
            response_serializer=answer.SerializeToString,
        )
        for method, (request, answer) in methods_of(service).items()
    }
