"""A sweep's way to the server: start a trial, hear of it, end it. Waits for a server that is away."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc

from orchestrator.cluster.channel import CHANNEL_OPTIONS
from orchestrator.core.sweeps import Sweep
from orchestrator.errors import EvertrainError, Refused, Unauthenticated
from orchestrator.protocol.sweeps import sweep_of
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb
from orchestrator.protocol.v1.generated import evertrain_pb2_grpc as rpc

T = TypeVar("T")

CALL_S = 30.0
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 3.0
_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


@dataclass(frozen=True)
class Address:
    """Where the server is, and whose sweep is spoken of."""

    server: str
    token: str = field(repr=False)
    ca_cert: str | None
    project: str
    sweep: str
    attempt: int


@dataclass(frozen=True)
class DriverOrder:
    """What the agent starts a driver with."""

    address: Address
    document: Mapping[str, Any]  # the sweep's run file
    ray_address: str
    node_ip: str  # trials' actors stay beside the driver: they hold nothing, and reach the server from here

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> DriverOrder:
        raw = json.loads(text)
        return cls(**{**raw, "address": Address(**raw["address"])})


class SearchLine:
    """Blocks. Safe from several threads; opened anew in each process."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._metadata = (("authorization", f"Bearer {address.token}"),)
        self._channel = _open(address)
        stubs: Any = rpc
        self._runs, self._sweeps = stubs.RunsStub(self._channel), stubs.SweepsStub(self._channel)

    def close(self) -> None:
        self._channel.close()

    def sweep(self, name: str = "") -> Sweep:
        """This one, or another one of the project."""
        request = pb.GetSweepRequest(sweep=name or self._address.sweep, project=self._address.project)
        return sweep_of(self._call(self._sweeps.Get, request))

    def start_trial(
        self, trial: int, point: Mapping[str, Any], generation: int = 0, start: str = "", reason: str = ""
    ) -> pb.Run:
        """The same trial and generation is the same run; the generation before ends for that `reason`.

        Raises Refused where this driver should not speak any more.
        """
        address = self._address
        request = pb.StartTrialRequest(
            sweep=address.sweep,
            project=address.project,
            attempt=address.attempt,
            trial=trial,
            generation=generation,
            point_json=json.dumps(point),
            start=start,
            reason=reason,
        )
        run: pb.Run = self._call(self._sweeps.StartTrial, request)
        return run

    def cancel(self, run_id: str, reason: str) -> None:
        """Idempotent; what has ended stays as it is."""
        self._call(self._runs.Cancel, pb.CancelRunRequest(run=run_id, project=self._address.project, reason=reason))

    def updates(self, run_id: str) -> Generator[pb.RunUpdate, None, None]:
        """Everything that has happened to the run, and all that does, until it has ended; each event once."""
        after, pauses = 0, _pauses()
        while True:
            request = pb.WatchRunRequest(run=run_id, project=self._address.project, after_event=after)
            call = self._runs.Watch(request, metadata=self._metadata)
            try:
                for update in call:
                    after = max([after, *(event.seq for event in update.events)])
                    pauses = _pauses()
                    yield update
                return
            except grpc.RpcError as error:
                if error.code() not in _AWAY:
                    raise _translated(error) from None
            finally:
                call.cancel()
            time.sleep(next(pauses))

    def _call(self, method: Callable[..., T], request: Any) -> T:
        """Every call of this class may safely happen twice."""
        pauses = _pauses()
        while True:
            try:
                return method(request, timeout=CALL_S, metadata=self._metadata)
            except grpc.RpcError as error:
                if error.code() not in _AWAY:
                    raise _translated(error) from None
            time.sleep(next(pauses))


def _translated(error: grpc.RpcError) -> EvertrainError:
    words = f"{error.code().name}: {error.details()}"
    return Unauthenticated(words) if error.code() is grpc.StatusCode.UNAUTHENTICATED else Refused(words)


def _pauses() -> Iterator[float]:
    """Growing, jittered, without an end: the server comes back, or whoever waits is ended."""
    pause_s = FIRST_PAUSE_S
    while True:
        yield pause_s * random.uniform(0.5, 1.0)
        pause_s = min(LONGEST_PAUSE_S, pause_s * 2)


def _open(address: Address) -> grpc.Channel:
    if address.ca_cert is None:
        return grpc.insecure_channel(address.server, CHANNEL_OPTIONS)
    certificate = Path(address.ca_cert).read_bytes()
    return grpc.secure_channel(address.server, grpc.ssl_channel_credentials(certificate), CHANNEL_OPTIONS)
