"""Whoever wants to hear of retrainings and promotions: each step is posted to every URL of the settings, signed.

    POST URL
    Content-Type: application/json
    Evertrain-Delivery: default/digits/7/promoted          the same for a step that is told again; of an alias that
                                                           somebody moved: default/digits/moves/12
    Evertrain-Timestamp: 1790000000                        seconds since the epoch
    Evertrain-Signature: sha256=HEX                        HMAC-SHA256, with the secret, of TIMESTAMP "." BODY

A receiver answers 2xx once it has taken it; anything else, or nothing within `TIMEOUT_S`, is told again later.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import logging
import urllib.parse
import urllib.request
from collections.abc import Sequence

from orchestrator.core.announcements import Announcement
from orchestrator.ports import Clock

log = logging.getLogger(__name__)

TIMEOUT_S = 10.0


class _Unmoved(urllib.request.HTTPRedirectHandler):
    """A redirected POST becomes a GET without its body: the receiver would have taken nothing."""

    def redirect_request(self, *args: object) -> None:
        return None


class HttpWebhooks:
    """Implements ports.Webhooks."""

    def __init__(self, urls: Sequence[str], secret: bytes, clock: Clock) -> None:
        self._urls, self._secret, self._clock = tuple(urls), secret, clock
        self._opener = urllib.request.build_opener(_Unmoved)

    def tell(self, announcement: Announcement) -> bool:
        body = json.dumps(announcement.message).encode()
        # all are told, whoever does not answer
        taken = [self._post(url, announcement.delivery, body) for url in self._urls]
        return all(taken)

    def _post(self, url: str, name: str, body: bytes) -> bool:
        timestamp = f"{self._clock.now():.0f}"
        headers = {
            "Content-Type": "application/json",
            "Evertrain-Delivery": name,
            "Evertrain-Timestamp": timestamp,
            "Evertrain-Signature": signature(self._secret, timestamp, body),
        }
        request = urllib.request.Request(url, body, headers, method="POST")
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                answer.read(0)
        except (OSError, ValueError, http.client.HTTPException) as error:  # URLError and HTTPError are OSErrors
            host = urllib.parse.urlsplit(url).hostname  # the rest of it may be a secret
            log.warning("the webhook at %s did not take %s, and is told again: %s", host, name, error or repr(error))
            return False
        return True


def signature(secret: bytes, timestamp: str, body: bytes) -> str:
    """What a receiver compares with the header, by `hmac.compare_digest`."""
    return "sha256=" + hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
