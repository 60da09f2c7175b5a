"""A team's own web server, which takes what webhooks are told."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any


class Receiver:
    def __init__(self) -> None:
        self.status, self.taken = 204, []  # type: tuple[int, list[tuple[Any, bytes]]]
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.taken.append((self.headers, body))
                self.send_response(outer.status)
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *words: Any) -> None:
                """Say nothing."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"

    def told(self, model: str) -> dict[str, dict[str, Any]]:
        """Messages of a model by the name of their delivery: one that is told again is the same."""
        found = {headers["Evertrain-Delivery"]: json.loads(body) for headers, body in list(self.taken)}
        return {name: each for name, each in found.items() if each["model"] == model}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
