"""Whether this container's process is well: healthy.py server|ray. Exit code 0, or 1 with a sentence why not.

For engines that ask by a command; Kubernetes asks the same addresses itself. Standard library only: it starts in 50 ms.
"""

from __future__ import annotations

import os
import ssl
import sys
import urllib.error
import urllib.request

PATIENCE_S = 3.0


def address(what: str) -> str:
    if what == "server":
        scheme = "https" if os.environ.get("EVERTRAIN_TLS_CERT") else "http"
        return f"{scheme}://127.0.0.1:{os.environ.get('EVERTRAIN_HTTP_PORT', '7461')}/readyz"
    return f"http://127.0.0.1:{os.environ.get('RAY_DASHBOARD_AGENT_PORT', '52365')}/api/local_raylet_healthz"


def main() -> int:
    if sys.argv[1:] not in (["server"], ["ray"]):
        print("usage: healthy.py server|ray", file=sys.stderr)
        return 2
    # The certificate names the server's host, not 127.0.0.1; who asks here shares the container with who answers.
    context = ssl._create_unverified_context()
    try:
        with urllib.request.urlopen(address(sys.argv[1]), timeout=PATIENCE_S, context=context):
            return 0
    except (OSError, urllib.error.URLError) as error:
        print(f"{address(sys.argv[1])}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
