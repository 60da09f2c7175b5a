"""One connection of the Python client: the token on every call, errors translated back, and what is safe tried again."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import grpc

from orchestrator.api.status import from_status
from orchestrator.errors import EvertrainError, Refused, Unavailable
from orchestrator.settings import Connection

T = TypeVar("T")

RETRIES = 5
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 3.0
ANSWER_BYTES = 64 * 2**20


class Calls:
    """Safe from several threads."""

    def __init__(self, connection: Connection, timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._metadata = (("authorization", f"Bearer {connection.token}"),)
        self._closed = threading.Event()
        self.channel = _open(connection)

    def close(self) -> None:
        self._closed.set()
        self.channel.close()

    def unary(self, method: Callable[..., T], request: Any, *, again: bool = True) -> T:
        """Call. `again`: it may safely happen twice, so an unreachable server is tried again for a while."""
        pauses = _pauses() if again else iter(())
        while True:
            try:
                return method(request, timeout=self._timeout_s, metadata=self._metadata)
            except grpc.RpcError as error:
                translated = self._translate(error)
                pause_s = next(pauses, None) if _unreachable(error) else None
                if pause_s is None:
                    raise translated from None
            self._pause(pause_s)

    def stream(self, method: Callable[..., Any], request: Any) -> Iterator[Any]:
        """The answers of a streaming call; it has no deadline. Closing the iterator ends the call."""
        call = method(request, metadata=self._metadata)
        try:
            yield from call
        except grpc.RpcError as error:
            raise self._translate(error) from None
        finally:
            call.cancel()

    def resumed(self, open_stream: Callable[[], Iterator[T]]) -> Iterator[T]:
        """The answers of a stream that is opened again where it broke off. Raises when it stays broken."""
        pauses = _pauses()
        while True:
            try:
                for answer in open_stream():
                    pauses = _pauses()
                    yield answer
                return
            except Unavailable:
                pause_s = next(pauses, None)
                if pause_s is None:
                    raise
            self._pause(pause_s)

    def upload(self, method: Callable[..., T], messages: Callable[[], Iterator[Any]]) -> T:
        """A streaming call that may safely happen twice."""
        return self.unary(lambda _, **options: method(messages(), **options), None)

    def _pause(self, pause_s: float) -> None:
        if self._closed.wait(pause_s):
            raise Refused("the client was closed")

    def _translate(self, error: grpc.RpcError) -> EvertrainError:
        code, details = error.code(), error.details() or ""
        if code is grpc.StatusCode.UNAVAILABLE and not error.trailing_metadata():
            details = (
                f"no answer from {self._connection.server}: is the server up? (`evertrain up` starts one; {details})"
            )
        metadata: Any = error.trailing_metadata() or ()
        return from_status(code, details, metadata)


def _unreachable(error: grpc.RpcError) -> bool:
    return error.code() is grpc.StatusCode.UNAVAILABLE


def _pauses() -> Iterator[float]:
    """Growing, and jittered: clients that lost one server at once do not come back at once."""
    for number in range(RETRIES):
        yield random.uniform(0.5, 1.0) * min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 3**number)


def _open(connection: Connection) -> grpc.Channel:
    options = [
        ("grpc.max_receive_message_length", ANSWER_BYTES),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.enable_retries", 0),  # ours know which calls are safe to repeat
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
    ]
    if connection.ca_cert is None:
        return grpc.insecure_channel(connection.server, options)
    try:
        certificate = connection.ca_cert.read_bytes()
    except OSError as error:
        raise Refused(f"EVERTRAIN_CA_CERT: {connection.ca_cert} cannot be read: {error.strerror}") from error
    return grpc.secure_channel(connection.server, grpc.ssl_channel_credentials(certificate), options)
