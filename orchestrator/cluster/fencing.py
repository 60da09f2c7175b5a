"""Self-fencing: a host that has lost the cluster ends its ranks, so that a new attempt elsewhere is the only one.

The bound is a promise to the server: `FENCE_S` after a host became unreachable, nothing of it trains any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

FENCE_S = 20.0
CHECK_EVERY_S = 2.0
CONNECT_TIMEOUT_S = 2.0
_LOST_AFTER_S = FENCE_S - CHECK_EVERY_S - CONNECT_TIMEOUT_S  # checks and the end itself take time, too


async def keep_contact(gcs_address: str, raylet_pid: int, fence: Callable[[str], None]) -> None:
    """Watch until cancelled; call `fence` with the reason once the raylet is dead or GCS was away for too long."""
    loop = asyncio.get_running_loop()
    heard_s = loop.time()
    while True:
        if os.getppid() != raylet_pid:
            fence("its raylet has died")
            return
        if await _answers(gcs_address):
            heard_s = loop.time()
        elif loop.time() - heard_s > _LOST_AFTER_S:
            fence(f"no contact with the cluster's control service at {gcs_address} for {_LOST_AFTER_S:g} s")
            return
        await asyncio.sleep(CHECK_EVERY_S)


async def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host.strip("[]"), int(port)), CONNECT_TIMEOUT_S)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
