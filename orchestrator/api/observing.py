"""Batches of live traffic on their way to the server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.api.calls import Calls
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb
from orchestrator.protocol.v1.generated import evertrain_pb2_grpc as rpc

WINDOW = 16
"""Batches that are sent before the answers to them are waited for."""
BATCH_ROWS = 2_000
BATCH_BYTES = 3 * 2**20
"""A server takes 4 MiB, unless it was told otherwise."""

Kind = Literal["rows", "labels", "sketch", "shadow"]


@dataclass(frozen=True)
class Outgoing:
    """One batch, encoded. The same (source, seq) is the same batch: it may be sent any number of times."""

    seq: int
    kind: Kind
    rows: int
    data: bytes


def within_size(kind: Kind, columns: Mapping[str, Any], seq: Iterator[int]) -> list[Outgoing]:
    """Columns of one length as batches that a server takes, with the next numbers of `seq`. Raises ValueError."""
    return [
        Outgoing(next(seq), kind, rows, data)
        for start in range(0, _length(columns), BATCH_ROWS)
        for rows, data in _encoded({name: each[start : start + BATCH_ROWS] for name, each in columns.items()})
    ]


def _encoded(columns: Mapping[str, Any]) -> list[tuple[int, bytes]]:
    """One batch, or the two halves of one that is too large, and so on."""
    from orchestrator.drift.batches import write_batch

    rows, data = _length(columns), write_batch(columns)
    if len(data) <= BATCH_BYTES or rows == 1:
        return [(rows, data)]
    half = rows // 2
    return [
        each
        for part in (slice(0, half), slice(half, rows))
        for each in _encoded({name: values[part] for name, values in columns.items()})
    ]


def _length(columns: Mapping[str, Any]) -> int:
    return max((len(each) for each in columns.values()), default=0)


class Replica:
    """What one source says of one model. `version`: that which answered; 0: not known."""

    def __init__(self, calls: Calls, *, project: str, model: str, version: int, source: str) -> None:
        stubs: Any = rpc
        self._calls = calls
        self._observe = stubs.MonitorsStub(calls.channel).Observe
        self._project, self._model, self._version, self._source = project, model, version, source

    def send(self, batches: Sequence[Outgoing], *, again: bool = True) -> Mapping[int, str]:
        """All of them, durable when it returns; why not, by the seq of each that was refused. `again`: try for a while where
        the server cannot be reached. Raises EvertrainError.
        """
        requests = [self._request(each) for each in batches]
        replies = self._calls.unary(
            lambda _, **options: list(self._observe(iter(requests), **options)), None, again=again
        )
        return {each.seq: each.refused for each in replies if each.refused}

    def _request(self, batch: Outgoing) -> pb.ObserveRequest:
        return pb.ObserveRequest(
            project=self._project,
            model=self._model,
            source=self._source,
            seq=batch.seq,
            kind=batch.kind,
            version=self._version,
            data=batch.data,
        )
