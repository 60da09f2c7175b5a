"""A run's events and checkpoints, in answers of bounded size: there is no limit to how many epochs a run has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from google.protobuf.message import Message

from orchestrator.api.parts import Parts, bad_request
from orchestrator.protocol import convert
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb

ANSWER_BYTES = 2**20  # a gRPC client takes 4 MiB unless told otherwise, and a state may travel beside the events

M = TypeVar("M", bound=Message)


async def events_page(parts: Parts, run_id: str, after: int, limit: int) -> pb.EventsResponse:
    """Events above `after`: at most `limit`, and fewer where they are large."""
    found = await parts.blocking(parts.store.events, run_id, after=after, limit=limit)
    shown = _fitting([convert.to_proto(each, pb.Event) for each in found])
    more = len(shown) < len(found) or len(found) == limit
    return pb.EventsResponse(events=shown, next_after=shown[-1].seq if shown and more else 0)


async def checkpoints_page(parts: Parts, run_id: str, page: str, limit: int) -> pb.CheckpointsResponse:
    """Checkpoints from where `page` says, newest first: at most `limit`, and fewer where they are large."""
    found = await parts.blocking(parts.store.checkpoints, run_id, below=_key(page), limit=limit)
    shown = _fitting([convert.to_proto(each, pb.Checkpoint) for each in found])
    more = len(shown) < len(found) or len(found) == limit
    last = ".".join(str(number) for number in found[len(shown) - 1].key) if shown and more else ""
    return pb.CheckpointsResponse(checkpoints=shown, next_page=last)


def _fitting(messages: Sequence[M]) -> list[M]:
    """The first of them, as many as one answer takes; one at least, however large."""
    fitting: list[M] = []
    size = 0
    for message in messages:
        size += message.ByteSize()
        if fitting and size > ANSWER_BYTES:
            break
        fitting.append(message)
    return fitting


def _key(page: str) -> tuple[int, int, int] | None:
    """Step, attempt and incarnation of the last checkpoint that was shown; None for the first page."""
    if not page:
        return None
    try:
        step, attempt, incarnation = (int(number) for number in page.split("."))
    except ValueError as error:
        raise bad_request("page", page, "use the next_page of an earlier answer, or leave it empty") from error
    return step, attempt, incarnation
