"""Trouble with the log stream is seen in the agent's log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata

from orchestrator.cluster import log_shipping
from orchestrator.cluster.log_shipping import LogShipper
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb

REFUSED = AioRpcError(grpc.StatusCode.PERMISSION_DENIED, Metadata(), Metadata(), "not your project")
AWAY = AioRpcError(grpc.StatusCode.UNAVAILABLE, Metadata(), Metadata(), "nobody there")


class Call:
    def __init__(self, answer: AioRpcError | pb.LogAck) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[pb.LogAck]:
        if isinstance(self._answer, AioRpcError):
            raise self._answer
        yield self._answer
        await asyncio.Event().wait()

    def cancel(self) -> None:
        pass


def test_a_stream_that_is_refused_again_and_again_is_told_once_and_when_it_is_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(log_shipping, "_PAUSE_S", 0.001)
    answers: list[Any] = [REFUSED] * 5 + [AWAY] * 5 + [pb.LogAck(credit=1)]
    stub = SimpleNamespace(ShipLogs=lambda batches, metadata: Call(answers.pop(0)))

    async def story() -> None:
        shipping = asyncio.create_task(LogShipper(stub, ()).run())
        async with asyncio.timeout(10):
            while len(caplog.messages) < 3 or answers:
                await asyncio.sleep(0.01)
        shipping.cancel()

    with caplog.at_level(logging.WARNING):
        asyncio.run(story())
    assert ["PERMISSION_DENIED: not your project" in each for each in caplog.messages] == [True, False, False]
    assert "UNAVAILABLE" in caplog.messages[1]
    assert "shipped again" in caplog.messages[2]
