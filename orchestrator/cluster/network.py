"""Where a gang meets: its address, the interface of that address, and the store that is served there."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Mapping

import psutil

from orchestrator.cluster.zygote_client import Lease, RankRequest

LOOPBACK = "127.0.0.1"
_STORE_WAIT_S = 30.0
_STORE_RANK = 0


class StoreLease:
    """A rendezvous store in a process of its own; it ends when this is closed, or this process ends."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease

    def close(self) -> None:
        self._lease.close()


def interface_of(master_addr: str, own_ip: str) -> str | None:
    """Name of the interface over which ranks meet; None when no interface of this host has the address."""
    wanted = LOOPBACK if master_addr == LOOPBACK else own_ip
    for name, addresses in psutil.net_if_addrs().items():  # type: ignore[no-untyped-call]
        if any(each.address == wanted for each in addresses if each.family in (socket.AF_INET, socket.AF_INET6)):
            return str(name)
    return None


def fork_store(zygote: str, address: str, environ: Mapping[str, str]) -> tuple[int, StoreLease]:
    """Have a store served at `address`, on a port that the kernel chooses. Blocks for some 10 ms.

    Raises ZygoteLost, RankRefused, TimeoutError.
    """
    lease = Lease(zygote)
    read_fd, write_fd = os.pipe()
    try:
        request = RankRequest(
            rank=_STORE_RANK,
            env={"PATH": environ.get("PATH", os.defpath)},
            cwd="/",
            stdout=write_fd,
            stderr=write_fd,
            call="orchestrator.cluster.store_process:serve",
            args=(address,),
        )
        os.close(lease.fork([request])[0].pidfd)
        os.close(write_fd)
        write_fd = -1
        return _read_port(read_fd), StoreLease(lease)
    except BaseException:
        lease.close()
        raise
    finally:
        os.close(read_fd)
        if write_fd >= 0:
            os.close(write_fd)


def _read_port(read_fd: int) -> int:
    said = b""
    while not said.endswith(b"\n") or not said.strip().split(b"\n")[-1].isdigit():
        if not select.select([read_fd], [], [], _STORE_WAIT_S)[0]:
            raise TimeoutError(f"the rendezvous store gave no port within {_STORE_WAIT_S:g} s: {said!r}")
        data = os.read(read_fd, 4096)
        if not data:
            raise OSError(f"the rendezvous store ended at once: {said.decode(errors='backslashreplace')}")
        said += data
    return int(said.strip().split(b"\n")[-1])
