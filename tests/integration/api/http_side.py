"""The HTTP side beside a stack."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import replace
from typing import Any

from orchestrator.api.http import HttpServer
from orchestrator.control.alerts import Alerts, Fired
from orchestrator.settings import Settings
from orchestrator.telemetry.metrics import Metrics
from tests.integration.api.stack import Stack


class Http:
    """Start it with `with`. `fired` hears of every alert that fires."""

    def __init__(self, stack: Stack, fired: Fired | None = None, **settings: Any) -> None:
        made = Settings(**{**stack.settings.model_dump(), **settings})
        self.stack = stack
        self.metrics = Metrics(made)
        self.parts = replace(stack.parts, settings=made)
        heard = {} if fired is None else {"fired": fired}
        self.alerts = Alerts(stack.store, stack.parts.commands, stack.clock, **heard)

    def __enter__(self) -> Http:
        async def make() -> HttpServer:
            server = HttpServer(self.parts, self.metrics, self.alerts)
            await server.start()
            return server

        self.server: HttpServer = self.stack.on_loop(make())
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.on_loop(self.server.stop())

    def get(self, path: str, secret: str = "", accept: str = "*/*") -> tuple[int, str]:
        return self._ask(urllib.request.Request(self._url(path), headers={"accept": accept}), secret)

    def post(self, path: str, body: Any, secret: str = "") -> tuple[int, str]:
        """`body`: bytes as they are, anything else as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._ask(urllib.request.Request(self._url(path), data), secret)

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server.port}{path}"

    def _ask(self, request: urllib.request.Request, secret: str) -> tuple[int, str]:
        if secret:
            request.add_header("authorization", f"Bearer {secret}")
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
