"""The HTTP side: /metrics, /healthz, /readyz, /alerts.

/healthz says that the process answers; /readyz that it can also read its store. Neither needs a token nor tells more than
one word. /metrics names projects and runs: it wants a bearer token of at least a viewer of every project ("*"), except
where `Settings.open_metrics` lets a loopback scraper in without one (the default on loopback binds only).
/alerts always wants a token: see `alert_intake`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from orchestrator.api.alert_intake import AlertIntake
from orchestrator.api.certificate import Certificate, certificate_of, tls_context
from orchestrator.api.parts import Parts
from orchestrator.api.scraping import Scraper
from orchestrator.api.server import port_taken
from orchestrator.control.alerts import Alerts
from orchestrator.errors import Denied, EvertrainError, Unauthenticated
from orchestrator.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

READY_WITHIN_S = 2.0


class HttpSide:
    """The routes."""

    def __init__(self, parts: Parts, metrics: Metrics, alerts: Alerts, certificate: Certificate | None) -> None:
        self._parts = parts
        self._scraper = Scraper(parts, metrics, alerts, certificate)
        self._intake = AlertIntake(parts, alerts)

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
                Route("/metrics", self._show_metrics),
                Route("/alerts", self._intake.post, methods=["POST"]),
            ]
        )

    async def _healthz(self, request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _readyz(self, request: Request) -> Response:
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                await self._parts.blocking(self._parts.store.clusters)
        except (EvertrainError, TimeoutError) as error:
            log.warning("not ready: the store does not answer: %s", error or "no answer in time")
            return PlainTextResponse("the store does not answer\n", status_code=503)
        return PlainTextResponse("ok\n")

    async def _show_metrics(self, request: Request) -> Response:
        try:
            body, content_type = await self._parts.blocking(
                self._scraper.scrape, request.headers.get("authorization"), request.headers.get("accept", "")
            )
        except Unauthenticated as error:
            return PlainTextResponse(f"{error}\n", status_code=401, headers={"www-authenticate": "Bearer"})
        except Denied as error:
            return PlainTextResponse(f"{error}\n", status_code=403)
        except EvertrainError as error:
            log.warning("/metrics: %s", error)
            return PlainTextResponse("the store does not answer\n", status_code=503)
        return Response(body, headers={"content-type": content_type})


class _Uvicorn(uvicorn.Server):
    """Leaves signals to the process that it lives in."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """Start it, then `port` says where it listens."""

    def __init__(self, parts: Parts, metrics: Metrics, alerts: Alerts) -> None:
        """Raises Refused for a certificate that cannot be served with."""
        self._settings = parts.settings
        certificate = certificate_of(parts.settings)
        app = HttpSide(parts, metrics, alerts, certificate).app()
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
        config.load()
        config.ssl = None if certificate is None else tls_context(certificate)
        self._server = _Uvicorn(config)
        self._task: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self) -> None:
        """Raises Refused when the port is taken."""
        bound = self._bind()
        self.port = bound.getsockname()[1]
        self._task = asyncio.create_task(self._server.serve(sockets=[bound]), name="http")
        while not self._server.started:
            if self._task.done():
                self._task.result()
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        self._server.should_exit = True
        if self._task is not None:
            await self._task

    def _bind(self) -> socket.socket:
        host, port = self._settings.http_host, self._settings.http_port
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            bound = socket.socket(family, kind, protocol)
        except OSError as error:
            raise port_taken("HTTP side", host, port, "EVERTRAIN_HTTP_PORT") from error
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.listen(128)
        except OSError as error:
            bound.close()
            raise port_taken("HTTP side", host, port, "EVERTRAIN_HTTP_PORT") from error
        return bound
