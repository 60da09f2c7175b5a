"""What `up`, its supervisor and `down` tell one another: one file in the stack's home, mode 0600."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from orchestrator.cli.processes import Process
from orchestrator.errors import Refused
from orchestrator.settings import write_private

PARTS = ("server", "ray", "agent")


@dataclass(frozen=True)
class Part:
    """One supervised sibling."""

    process: Process | None = None
    restarts: int = 0  # since it last ran steadily
    last_end: str = ""


@dataclass(frozen=True)
class StackState:
    mark: str
    home: str
    cluster: str
    grpc_port: int
    http_port: int
    ray_port: int
    ray_dir: str  # Ray's temporary directory; short, for unix sockets take 107 characters
    cpus: int | None = None
    supervisor: Process | None = None
    parts: dict[str, Part] = field(default_factory=dict)

    @property
    def server(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def ray_address(self) -> str:
        return f"127.0.0.1:{self.ray_port}"

    @property
    def server_dir(self) -> Path:
        return Path(self.home) / "server"

    @property
    def ray_token(self) -> Path:
        return Path(self.home) / "ray.token"

    def log(self, part: str) -> Path:
        return Path(self.home) / "logs" / f"{part}.log"

    def save(self) -> None:
        write_private(state_file(Path(self.home)), json.dumps(asdict(self), indent=1) + "\n")


def state_file(home: Path) -> Path:
    return home / "stack.json"


def load_state(home: Path) -> StackState | None:
    """None where no stack was started. Raises Refused for a file that cannot be read."""
    path = state_file(home)
    try:
        raw = json.loads(path.read_text())
        raw["supervisor"] = _process(raw["supervisor"])
        raw["parts"] = {
            name: Part(_process(each["process"]), each["restarts"], each["last_end"])
            for name, each in raw["parts"].items()
        }
        return StackState(**raw)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refused(
            f"{path} is not a readable stack state ({error}): end what it started by hand and remove it"
        ) from error


def _process(raw: dict[str, int] | None) -> Process | None:
    return Process(**raw) if raw else None
