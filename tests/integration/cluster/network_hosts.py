"""Several hosts on one machine: network namespaces joined by a bridge. Needs root and iproute2."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess


def why_not() -> str:
    """Why there cannot be such hosts here; empty where there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need iproute2"
    probe = f"etprobe{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    if made.returncode != 0:
        return f"network namespaces are not permitted here: {made.stderr.strip()}"
    _ip("netns", "delete", probe)
    return ""


_made = itertools.count()


class NetworkHosts:
    """`count` namespaces with addresses of one private network; `gateway` is this machine's own address on it."""

    def __init__(self, count: int) -> None:
        tag, nth = os.getpid() % 10_000, next(_made)  # the kernel takes the cables of earlier ones away in its own time
        self._bridge = f"etb{tag}n{nth}"
        network = f"10.{200 + tag % 50}.{tag // 50 % 250}"
        self.gateway = f"{network}.254"
        self.names = [f"et{tag}n{nth}h{number}" for number in range(count)]
        self.addresses = [f"{network}.{number + 1}" for number in range(count)]
        try:
            self._connect()
        except subprocess.CalledProcessError:
            self.close()
            raise

    def _connect(self) -> None:
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("addr", "add", f"{self.gateway}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        for name, address in zip(self.names, self.addresses, strict=True):
            _ip("netns", "add", name)
            _ip("link", "add", f"{name}v", "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("link", "set", f"{name}v", "master", self._bridge, "up")
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            _ip("-n", name, "link", "set", "lo", "up")

    def inside(self, number: int, *command: str) -> list[str]:
        """`command`, to be run on that host."""
        return ["ip", "netns", "exec", self.names[number], *command]

    def cut(self, number: int) -> None:
        """Take the host's cable out."""
        _ip("link", "set", f"{self.names[number]}v", "down")

    def close(self) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)
        subprocess.run(["ip", "link", "delete", self._bridge], capture_output=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
