"""Every method of the wire, called by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from orchestrator.protocol.v1.generated import evertrain_pb2 as pb


@dataclass(frozen=True)
class Method:
    path: str
    request: type[Message]
    response: type[Message]
    stream_in: bool
    stream_out: bool

    @property
    def name(self) -> str:
        return self.path.removeprefix("/evertrain.v1.")


def _method(service: Any, method: Any) -> Method:
    return Method(
        f"/{service.full_name}/{method.name}",
        GetMessageClass(method.input_type),
        GetMessageClass(method.output_type),
        method.client_streaming,
        method.server_streaming,
    )


METHODS = tuple(
    _method(service, method) for service in pb.DESCRIPTOR.services_by_name.values() for method in service.methods
)


def call(channel: grpc.Channel, method: Method, request: Message, secret: str | None) -> list[Message]:
    """What the server answers: at most one message of a stream. Raises grpc.RpcError."""
    kinds = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }
    stub: Any = kinds[method.stream_in, method.stream_out](
        method.path,
        request_serializer=method.request.SerializeToString,
        response_deserializer=method.response.FromString,
    )
    metadata = () if secret is None else (("authorization", f"Bearer {secret}"),)
    answer = stub(iter([request]) if method.stream_in else request, metadata=metadata, timeout=20)
    if not method.stream_out:
        return [answer]
    first = next(answer, None)
    answer.cancel()
    return [] if first is None else [first]


def code(channel: grpc.Channel, method: Method, request: Message, secret: str | None) -> grpc.StatusCode:
    try:
        call(channel, method, request, secret)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK
