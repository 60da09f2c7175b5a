"""The services of deploy/compose.yaml, run as it says without a container engine: each in a root file system (layers.py)
with a network, addresses, secrets and rights of its own. Not done: limits of memory and CPU, own process ids.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.deploy.layers import Image, Mount, in_container, in_running

_STOP_S = 60.0
_numbers = itertools.count()

Service = Mapping[str, Any]


class Network:
    """One network of the compose file: a bridge that has no address of this machine's."""

    def __init__(self, subnet: str, *, internal: bool) -> None:
        self.subnet, self.internal = subnet, internal
        self.bridge = f"evc{os.getpid() % 10_000}b{next(_numbers)}"
        self.addresses: dict[str, str] = {}  # by service, of the first of them
        self.own: dict[str, str] = {}  # of each
        _ip("link", "add", self.bridge, "type", "bridge")
        _ip("link", "set", self.bridge, "up")

    def join(self, service: str, key: str, namespace: str) -> None:
        number = next(_numbers)
        address, cable, within = f"{self.subnet}.{len(self.own) + 2}", f"{self.bridge}v{number}"[-15:], f"n{number}"
        _ip("link", "add", cable, "type", "veth", "peer", "name", within, "netns", namespace)
        _ip("link", "set", cable, "master", self.bridge, "up")
        _ip("-n", namespace, "addr", "add", f"{address}/24", "dev", within)
        _ip("-n", namespace, "link", "set", within, "up")
        self.own[key] = address
        self.addresses.setdefault(service, address)
        if not self.internal:  # nobody answers there, but by this route programs find their own address
            subprocess.run(
                ["ip", "-n", namespace, "route", "add", "default", "via", f"{self.subnet}.1"], capture_output=True
            )

    def close(self) -> None:
        subprocess.run(["ip", "link", "delete", self.bridge], capture_output=True)


class Container:
    """One running command of a service."""

    def __init__(self, name: str, command: list[str], log: Path) -> None:
        self.name, self.log = name, log
        with log.open("ab") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)

    def stop(self) -> int:
        """As `docker stop`: its first process is asked to end, and has a minute."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=_STOP_S)

    def kill(self) -> None:
        """With all that it started and left in its session."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.process.wait()


class Engine:
    """`images` by service; `directory` on a file system of its own (/dev/shm) for volumes, logs and what containers need."""

    def __init__(self, compose: Mapping[str, Any], project: Path, images: Mapping[str, Image], directory: Path) -> None:
        self._compose, self._project, self._images, self._directory = compose, project, images, directory
        self._services: Mapping[str, Service] = compose["services"]
        self.networks = {
            name: Network(f"10.{180 + number}.{os.getpid() % 250}", internal=facts.get("internal", False))
            for number, (name, facts) in enumerate(compose["networks"].items())
        }
        self._namespaces: dict[str, str] = {}
        self._resolver = directory / "resolv.conf"
        self._resolver.write_text(
            "nameserver 127.0.0.1\n"
        )  # where nobody listens: no name but those of the hosts' files
        self.containers: dict[str, Container] = {}

    # ---- what `docker compose` does ---------------------------------------------------------------------------------

    def up(self, *names: str, within_s: float = 240.0) -> None:
        """Start services, as many of each as it says, each after what it waits for. Raises AssertionError with its log."""
        for name in names:
            for replica in range(self._services[name].get("deploy", {}).get("replicas", 1)):
                self._namespace(name, replica)
        for name in names:
            for other, how in self._services[name].get("depends_on", {}).items():
                assert other in names[: names.index(name)], f"{name} waits for {other}, which is not started before it"
                if how["condition"] == "service_healthy":
                    self.wait_healthy(other, within_s)
            for replica in range(self._services[name].get("deploy", {}).get("replicas", 1)):
                self.start(name, replica)

    def start(self, name: str, replica: int = 0) -> Container:
        key = f"{name}-{replica}" if replica else name
        service, image = self._services[name], self._images[name]
        own = _words(service.get("entrypoint", image.entrypoint))
        given = _words(service.get("command", () if "entrypoint" in service else image.command))
        log = self._directory / f"{key}.log"
        self.containers[key] = Container(name, self._command(name, replica, [*own, *given]), log)
        return self.containers[key]

    def run(self, name: str, *words: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """`docker compose exec` where the service runs, else `docker compose run`."""
        running = self.containers.get(name)
        if running is not None and running.process.poll() is None:
            command = in_running(
                running.process.pid, self._images[name], words, env=self._env(name), user=self._user(name)
            )
        else:
            command = self._command(name, 0, list(words))
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)

    def is_healthy(self, name: str) -> bool:
        """By the service's own health check, or its image's."""
        test = self._services[name].get("healthcheck", {}).get("test")
        match _words(test or ()):
            case ["CMD", *words]:
                command = words
            case ["CMD-SHELL", line]:
                command = ["sh", "-c", line]
            case _:
                command = list(self._images[name].healthcheck)
        return self.run(name, *command).returncode == 0

    def wait_healthy(self, name: str, within_s: float) -> None:
        """Started again where it ends meanwhile and its policy is to: Ray gives up by itself on a machine that is busy."""
        deadline = time.monotonic() + within_s
        while not self.is_healthy(name):
            container = self.containers[name]
            assert time.monotonic() < deadline, f"{name} is not healthy: {container.log.read_text()[-3000:]}"
            if container.process.poll() is not None:
                assert self._services[name]["restart"] == "unless-stopped", container.log.read_text()[-3000:]
                self.start(name)

    def crash(self, name: str) -> None:
        """SIGKILL for whatever shares the service's network, of other services too."""
        namespace = self._namespace(name, 0)
        pids = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True).stdout.split()
        subprocess.run(["kill", "-9", *pids], capture_output=True)
        for container in self.containers.values():
            if self._owner(container.name, "network_mode") == name:
                container.kill()

    def close(self) -> None:
        for container in reversed(self.containers.values()):
            container.kill()
        for namespace in self._namespaces.values():
            pids = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True).stdout.split()
            subprocess.run(["kill", "-9", *pids], capture_output=True)  # what has left its session, as Ray's workers do
            subprocess.run(["ip", "netns", "delete", namespace], capture_output=True)
        for network in self.networks.values():
            network.close()

    # ---- of one container -------------------------------------------------------------------------------------------

    def _command(self, name: str, replica: int, words: list[str]) -> list[str]:
        service, image = self._services[name], self._images[name]
        box = self._directory / f"box{next(_numbers)}"
        box.mkdir()
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        namespace, mounts = self._namespace(name, replica), self._mounts(name, replica)
        within = in_container(image, box, words, env=self._env(name), user=self._user(name), mounts=mounts)
        return ["ip", "netns", "exec", namespace, *within]

    def _env(self, name: str) -> dict[str, str]:
        own = self._services[name].get("environment", {})
        return {**self._images[name].env, **{key: str(value) for key, value in own.items()}}

    def _user(self, name: str) -> str:
        return str(self._services[name].get("user", self._images[name].user))

    def _mounts(self, name: str, replica: int) -> Iterator[Mount]:
        service = self._services[name]
        yield Mount("/etc/hosts", self._hosts(name, replica))
        yield Mount("/etc/resolv.conf", self._resolver)
        yield Mount("/dev/shm", self._made("shm", self._owner(name, "ipc"), replica), read_only=False)
        for each in service.get("secrets", ()):
            source, target = (
                (each, f"/run/secrets/{each}") if isinstance(each, str) else (each["source"], each["target"])
            )
            yield Mount(target, self._project / self._compose["secrets"][source]["file"])
        for path in self._images[name].volumes:
            yield Mount(path, self._made(f"{name}{path.replace('/', '-')}", "", replica), read_only=False)
        for volume in service.get("volumes", ()):
            source, target, *options = volume.split(":")
            if source.startswith((".", "/")):
                yield Mount(target, (self._project / source).resolve(), read_only="ro" in options)
            else:
                yield Mount(target, self._volume(source), read_only=False)
        for each in service.get("tmpfs", ()):
            target, _, options = each.partition(":")
            size = re.search(r"size=\w+", options)
            yield Mount(target, options=f",{size[0]}" if size else "")

    def _volume(self, name: str) -> Path:
        options = (self._compose["volumes"][name] or {}).get("driver_opts", {}).get("o", "")
        mode = re.search(r"mode=(\d+)", options)
        return self._made("volume", name, 0, mode=int(mode[1], 8) if mode else 0o755)

    def _made(self, kind: str, name: str, replica: int, mode: int = 0o1777) -> Path:
        path = self._directory / f"{kind}-{name}-{replica}"
        if not path.exists():
            path.mkdir()
            path.chmod(mode)
        return path

    def _hosts(self, name: str, replica: int) -> Path:
        """The names that the engine's resolver would know there, and the machine's own, which is no container's here."""
        path = self._directory / f"hosts{next(_numbers)}"
        owner = self._owner(name, "network_mode")
        known = {"localhost": "127.0.0.1"}
        for network in reversed(self._services[owner]["networks"]):
            known |= self.networks[network].addresses
            known[socket.gethostname()] = self.networks[network].own[f"{owner}-{replica}"]
        path.write_text("".join(f"{address} {host}\n" for host, address in known.items()))
        return path

    def _owner(self, name: str, key: str) -> str:
        """Whose network or shared memory a service uses."""
        shared = str(self._services[name].get(key, ""))
        return shared.removeprefix("service:") if shared.startswith("service:") else name

    def _namespace(self, name: str, replica: int) -> str:
        owner = self._owner(name, "network_mode")
        if owner != name:
            return self._namespace(owner, 0)
        key = f"{name}-{replica}"
        if key not in self._namespaces:
            namespace = f"evc{os.getpid() % 10_000}n{next(_numbers)}"
            _ip("netns", "add", namespace)
            self._namespaces[key] = namespace
            _ip("-n", namespace, "link", "set", "lo", "up")
            for network in self._services[name]["networks"]:
                self.networks[network].join(name, key, namespace)
        return self._namespaces[key]


def _words(value: str | Sequence[str]) -> list[str]:
    """`$$` is how a compose file writes a dollar."""
    return [str(word).replace("$$", "$") for word in ([value] if isinstance(value, str) else value)]


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


def directory() -> Path:
    """An empty directory that layers and volumes can be in: not on the disk that this machine's root is on."""
    path = Path("/dev/shm") / f"evertrain-{os.getpid()}-{next(_numbers)}"
    path.mkdir(mode=0o755)
    return path


def remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
