"""The server's side of an attached cluster, without a server: it orders what a test says and writes down what it hears."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import grpc

from orchestrator.core import observations as seen
from orchestrator.core.orders import AttemptOrder
from orchestrator.core.records import LogLine
from orchestrator.core.runs import StopOrder
from orchestrator.core.scheduling.fit import Node
from orchestrator.protocol.convert import from_proto, to_proto
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb
from orchestrator.protocol.v1.generated import evertrain_pb2_grpc as rpc

TOKEN = "token-of-the-test"
WAIT_S = 90.0

Key = tuple[str, int]


class RecordingServer:
    """Durable over `down` and `up`, as the real one is. Applies each numbered observation once."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._host = host
        self.observations: dict[Key, list[seen.Observation]] = {}
        self.progress: dict[Key, list[seen.Progress]] = {}
        self.lines: dict[Key, list[LogLine]] = {}
        self.nodes: tuple[Node, ...] = ()
        self.hellos: list[pb.Hello] = []
        self.bundles: dict[str, bytes] = {}
        self.acknowledging = True
        self.taking_lines = True
        self._orders: dict[Key, AttemptOrder] = {}
        self._changed = threading.Condition()
        self._sessions: list[queue.Queue[pb.ServerMessage | None]] = []
        self.newest_epoch = 0
        self._server: grpc.Server | None = None
        self.port = 0
        self.up()

    @property
    def address(self) -> str:
        return f"{self._host}:{self.port}"

    def up(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(32), options=[("grpc.so_reuseport", 0)])
        services: Any = rpc
        services.add_ClustersServicer_to_server(_Servicer(self), self._server)
        self.port = self._server.add_insecure_port(f"{self._host}:{self.port}")
        self._server.start()

    def down(self) -> None:
        assert self._server is not None
        for session in list(self._sessions):
            session.put(None)
        self._server.stop(None).wait()

    # ---- what a test orders ---------------------------------------------------------------------------------------

    def order(self, order: AttemptOrder) -> Key:
        key = (order.run_id, order.attempt)
        with self._changed:
            self._orders[key] = order
        self.tell_desired()
        return key

    def stop(self, key: Key, kind: Any) -> None:
        with self._changed:
            self._orders[key] = replace(self._orders[key], stop=StopOrder(kind, "ada", f"{kind} by ada"))
        self.tell_desired()

    def forget(self, key: Key) -> None:
        with self._changed:
            self._orders.pop(key, None)
        self.tell_desired()

    def tell_desired(self) -> None:
        for session in list(self._sessions):
            session.put(self._desired())

    # ---- what it heard --------------------------------------------------------------------------------------------

    def wait(self, what: str, true: Callable[[], Any], timeout_s: float = WAIT_S) -> Any:
        """The first true value; fails with what was heard."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not (value := true()):
                left_s = deadline - time.monotonic()
                assert left_s > 0, f"{what} did not happen within {timeout_s:g} s; heard {self._heard_words()}"
                self._changed.wait(min(left_s, 0.2))
        return value

    def _heard_words(self) -> str:
        newest = list(self.observations.items())[-1:]
        return "\n".join(str(each.what)[:500] for _, found in newest for each in found)

    def heard(self, key: Key, cls: type[Any]) -> list[Any]:
        return [each.what for each in self.observations.get(key, ()) if isinstance(each.what, cls)]

    def wait_heard(self, key: Key, cls: type[Any], count: int = 1, timeout_s: float = WAIT_S) -> Any:
        """The `count`-th happening of that class."""

        def enough_or_over() -> bool:
            return len(self.heard(key, cls)) >= count or bool(self.heard(key, seen.AttemptEnded))

        self.wait(f"{count} x {cls.__name__}", enough_or_over, timeout_s)
        found = self.heard(key, cls)
        assert len(found) >= count, f"it ended without {count} x {cls.__name__}:\n{self._heard_words()}"
        return found[count - 1]

    def wait_ended(self, key: Key, timeout_s: float = WAIT_S) -> seen.AttemptEnded:
        ended: seen.AttemptEnded = self.wait_heard(key, seen.AttemptEnded, 1, timeout_s)
        return ended

    def text(self, key: Key) -> str:
        return "\n".join(line.text for line in self.lines.get(key, ()))

    # ---- for the servicer -----------------------------------------------------------------------------------------

    def attach(self, hello: pb.Hello, session: queue.Queue[pb.ServerMessage | None]) -> None:
        with self._changed:
            if hello.epoch < self.newest_epoch:
                session.put(self._superseded())
                session.put(None)
                return
            self.newest_epoch = hello.epoch
            for old in self._sessions:
                old.put(self._superseded())
                old.put(None)
            self._sessions = [session]
            self.hellos.append(hello)
            self._changed.notify_all()
        session.put(pb.ServerMessage(welcome=pb.Welcome(server_id="recorder")))
        session.put(self._desired())

    def _superseded(self) -> pb.ServerMessage:
        message = f"a newer agent (epoch {self.newest_epoch}) attached"
        return pb.ServerMessage(superseded=pb.Superseded(message=message, epoch=self.newest_epoch))

    def _desired(self) -> pb.ServerMessage:
        with self._changed:
            desired = pb.Desired()
            for each in self._orders.values():
                (desired.ahead if each.ahead else desired.attempts).append(to_proto(each, pb.AttemptOrder))
        return pb.ServerMessage(desired=desired)

    def hear(self, message: pb.AgentMessage) -> pb.ServerMessage | None:
        with self._changed:
            self._changed.notify_all()
            if message.HasField("inventory"):
                self.nodes = tuple(from_proto(node, Node) for node in message.inventory.nodes)
            elif message.HasField("progress"):
                progress = from_proto(message.progress, seen.Progress)
                self.progress.setdefault((progress.run_id, progress.attempt), []).append(progress)
            elif message.HasField("observation") and self.acknowledging:
                return self._keep(from_proto(message.observation, seen.Observation))
        return None

    def _keep(self, observation: seen.Observation) -> pb.ServerMessage | None:
        """Nothing where those before it were not taken: they will be told again, and it with them."""
        key = (observation.run_id, observation.attempt)
        kept = self.observations.setdefault(key, [])
        if observation.seq > max((each.seq for each in kept), default=0) + 1:
            return None
        if observation.seq == 0 or all(each.seq != observation.seq for each in kept):
            kept.append(observation)
            if isinstance(observation.what, seen.Placed) and key in self._orders:
                self._orders[key] = replace(self._orders[key], placed=True)
        return pb.ServerMessage(ack=pb.Ack(run_id=key[0], attempt=key[1], seq=observation.seq))

    def keep_lines(self, batch: pb.LogBatch) -> pb.LogAck:
        lines = [from_proto(each, LogLine) for each in batch.lines]
        with self._changed:
            for line in lines:
                kept = self.lines.setdefault((line.run_id, line.attempt), [])
                if all((each.source, each.seq) != (line.source, line.seq) for each in kept):
                    kept.append(line)
            self._changed.notify_all()
        last = lines[-1]
        return pb.LogAck(run_id=last.run_id, attempt=last.attempt, source=last.source, seq=last.seq, credit=4)


class _Servicer:
    def __init__(self, server: RecordingServer) -> None:
        self._server = server

    def Attach(self, messages: Iterator[pb.AgentMessage], context: Any) -> Iterator[pb.ServerMessage]:
        self._check_token(context)
        session: queue.Queue[pb.ServerMessage | None] = queue.Queue()
        self._server.attach(next(messages).hello, session)
        threading.Thread(target=self._read, args=(messages, session), daemon=True).start()
        while (answer := session.get()) is not None:
            yield answer

    def _read(self, messages: Iterator[pb.AgentMessage], session: queue.Queue[pb.ServerMessage | None]) -> None:
        try:
            for message in messages:
                answer = self._server.hear(message)
                if answer is not None:
                    session.put(answer)
        except grpc.RpcError:
            pass
        session.put(None)

    def ShipLogs(self, batches: Iterator[pb.LogBatch], context: Any) -> Iterator[pb.LogAck]:
        self._check_token(context)
        for batch in batches:
            if not self._server.taking_lines:
                context.abort(grpc.StatusCode.UNAVAILABLE, "no lines now")
            yield self._server.keep_lines(batch)

    def GetBundle(self, request: pb.Bundle, context: Any) -> Iterator[pb.BundleChunk]:
        self._check_token(context)
        data = self._server.bundles.get(request.sha256)
        if data is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such bundle")
        for at in range(0, len(data), 1000):
            yield pb.BundleChunk(data=data[at : at + 1000])

    def List(self, request: Any, context: Any) -> Any:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "not part of this server")

    Drain = List

    def _check_token(self, context: Any) -> None:
        if dict(context.invocation_metadata()).get("authorization") != f"Bearer {TOKEN}":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "unknown token")
