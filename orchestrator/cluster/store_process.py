"""The rendezvous store of one incarnation, in a process of its own that a zygote forks: it outlives any rank.

It listens on the address that the gang meets at and nowhere else, because a TCPStore asks nobody who they are.
"""

from __future__ import annotations

import signal
import socket
from datetime import timedelta

_TIMEOUT = timedelta(seconds=60)


def serve(address: str) -> None:
    """Print the port, then serve until killed. Runs in a fork of the zygote, where torch is imported already."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    listener.bind((address, 0))
    listener.listen(2048)
    port = listener.getsockname()[1]
    store = TCPStore(
        address, port, is_master=True, wait_for_workers=False, timeout=_TIMEOUT, master_listen_fd=listener.detach()
    )
    print(port, flush=True)
    while store is not None:
        signal.pause()
