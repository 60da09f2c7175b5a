"""The gRPC server: limits, keepalive, health, reflection, TLS."""

from __future__ import annotations

import logging
import socket
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH
from grpc_health.v1.health import aio as health  # type: ignore[attr-defined]  # not in the stubs
from grpc_reflection.v1alpha import reflection

from orchestrator.api.access_services import SecretsService, TokensService
from orchestrator.api.certificate import certificate_of, grpc_credentials
from orchestrator.api.clusters_service import ClustersService
from orchestrator.api.guard import Guard
from orchestrator.api.models_service import ModelsService
from orchestrator.api.monitors_service import MonitorsService
from orchestrator.api.parts import Parts
from orchestrator.api.runs_service import RunsService
from orchestrator.api.sweeps_service import SweepsService
from orchestrator.errors import Refused
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb
from orchestrator.protocol.v1.generated import evertrain_pb2_grpc as rpc
from orchestrator.settings import LOOPBACK_HOSTS, Settings

log = logging.getLogger(__name__)

SERVICES = tuple(each.full_name for each in pb.DESCRIPTOR.services_by_name.values())


class GrpcServer:
    """Start it, then `port` says where it listens."""

    def __init__(self, parts: Parts) -> None:
        settings = parts.settings
        guard = Guard(parts.authenticator, parts.executor, settings.unary_deadline_s)
        self._settings = settings
        self._server = grpc.aio.server(interceptors=[guard], options=_options(settings))
        self._health = health.HealthServicer()
        self.port = 0
        for add, service in _services(parts, self._health):
            add(service, self._server)
        names = (*SERVICES, HEALTH, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)  # type: ignore[no-untyped-call]

    async def start(self) -> None:
        """Raises Refused when the port is taken or the certificate cannot be read."""
        self.port = self._bind()
        await self._server.start()
        for service in ("", *SERVICES):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    async def stop(self, grace_s: float) -> None:
        """Say so to health checks, take no new calls, and end the open ones after `grace_s`."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)

    def _bind(self) -> int:
        settings = self._settings
        address = f"{_bracketed(settings.grpc_host)}:{settings.grpc_port}"
        certificate = certificate_of(settings)
        if certificate is None and settings.grpc_host not in LOOPBACK_HOSTS:
            log.warning("the gRPC API on %s is not encrypted: set EVERTRAIN_TLS_CERT and EVERTRAIN_TLS_KEY", address)
        try:
            _probe(settings.grpc_host, settings.grpc_port)
            if certificate is None:
                return self._server.add_insecure_port(address)
            return self._server.add_secure_port(address, grpc_credentials(certificate))
        except (RuntimeError, OSError) as error:
            raise port_taken("gRPC API", settings.grpc_host, settings.grpc_port, "EVERTRAIN_GRPC_PORT") from error


def _services(parts: Parts, health_service: Any) -> list[tuple[Any, Any]]:
    """Each service with the generated function that adds it."""
    return [
        (rpc.add_RunsServicer_to_server, RunsService(parts)),
        (rpc.add_SweepsServicer_to_server, SweepsService(parts)),
        (rpc.add_ModelsServicer_to_server, ModelsService(parts)),
        (rpc.add_MonitorsServicer_to_server, MonitorsService(parts)),
        (rpc.add_TokensServicer_to_server, TokensService(parts)),
        (rpc.add_SecretsServicer_to_server, SecretsService(parts)),
        (rpc.add_ClustersServicer_to_server, ClustersService(parts)),
        (health_pb2_grpc.add_HealthServicer_to_server, health_service),
    ]


def port_taken(what: str, host: str, port: int, variable: str) -> Refused:
    return Refused(
        f"the {what} cannot listen on {host}:{port}: the port is taken, or the address is not of this machine. "
        f"Is another Evertrain running (`evertrain down` ends it)? Otherwise set {variable} to a free port"
    )


def _probe(host: str, port: int) -> None:
    """Raises OSError for a port that cannot be listened on: gRPC would write its own lines about it to stderr first."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


def _options(settings: Settings) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", settings.message_bytes),
        ("grpc.max_send_message_length", -1),  # answers are bounded by pages
        ("grpc.max_concurrent_streams", settings.concurrent_streams),
        ("grpc.so_reuseport", 0),  # otherwise a second server on the port would take half of the calls
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.http2.max_ping_strikes", 0),
    ]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
