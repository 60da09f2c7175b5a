"""The server's own certificate: its files are read again once they were replaced, so that a renewed one needs no restart."""

from __future__ import annotations

import logging
import ssl
import threading
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from orchestrator.errors import Refused
from orchestrator.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pair:
    """`chain` and `key` in PEM. `expires_at`: of the first in the chain to expire, in seconds since the epoch."""

    chain: bytes
    key: bytes = field(repr=False)
    expires_at: float


class Certificate:
    """What new connections are served with. Safe from several threads."""

    def __init__(self, chain: Path, key: Path) -> None:
        """Raises Refused where the files cannot be served with."""
        self.chain, self.key = chain, key
        self._lock = threading.Lock()
        self._seen = self._stamps()
        self._pair = self._read()

    def current(self) -> Pair:
        """The files as they are. While they cannot be served with, the pair of before goes on, and the log says why."""
        with self._lock:
            if (stamps := self._stamps()) != self._seen:
                self._seen = stamps
                try:
                    self._pair = self._read()
                    log.info("TLS: the certificate in %s was replaced and is served from now on", self.chain)
                except Refused as error:
                    log.warning("%s; the certificate that was read before is served on", error)
            return self._pair

    def _stamps(self) -> tuple[tuple[int, int, int] | None, ...]:
        """Differ once a file was replaced or written to. None for one that is not there."""
        return tuple(_stamp(each) for each in (self.chain, self.key))

    def _read(self) -> Pair:
        from cryptography import x509
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        chain, key = _bytes(self.chain), _bytes(self.key)
        try:
            certificates = x509.load_pem_x509_certificates(chain)
            matches = certificates[0].public_key() == load_pem_private_key(key, password=None).public_key()
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise Refused(f"TLS: {self.chain} with {self.key} cannot be used: {error}") from error
        if not matches:
            raise Refused(f"TLS: {self.key} is not the key of the first certificate in {self.chain}")
        return Pair(chain, key, min(each.not_valid_after_utc.timestamp() for each in certificates))


def certificate_of(settings: Settings) -> Certificate | None:
    """None without TLS. Raises Refused for files that cannot be served with, or where only one is set."""
    if settings.tls_cert is None and settings.tls_key is None:
        return None
    if settings.tls_cert is None or settings.tls_key is None:
        raise Refused("TLS needs both EVERTRAIN_TLS_CERT and EVERTRAIN_TLS_KEY, and only one is set")
    return Certificate(settings.tls_cert, settings.tls_key)


def grpc_credentials(certificate: Certificate) -> grpc.ServerCredentials:
    """gRPC asks at every handshake whether there is another pair."""
    served = certificate.current()

    def renewed() -> grpc.ServerCertificateConfiguration | None:  # None: no other
        nonlocal served
        newest = certificate.current()
        if newest is served:
            return None
        served = newest
        return _configuration(newest)

    return grpc.dynamic_ssl_server_credentials(_configuration(served), renewed)  # type: ignore[arg-type]  # not in the stubs


def tls_context(certificate: Certificate) -> ssl.SSLContext:
    """Every handshake is moved to a context with the newest pair: one that is in use must not be given another."""
    newest = _Newest(certificate)
    context = newest.context()
    context.sni_callback = newest.move
    return context


class _Newest:
    """Lives on the event loop."""

    def __init__(self, certificate: Certificate) -> None:
        self._certificate = certificate
        self._served, self._context = certificate.current(), _context(certificate)

    def context(self) -> ssl.SSLContext:
        newest = self._certificate.current()
        if newest is not self._served:
            try:
                self._context, self._served = _context(self._certificate), newest
            except OSError as error:  # replaced once more just now: the next handshake looks again
                log.warning("TLS: %s cannot be read just now: %s", self._certificate.chain, error)
        return self._context

    def move(self, connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, first: ssl.SSLContext) -> None:
        connection.context = self.context()


def _context(certificate: Certificate) -> ssl.SSLContext:
    """Raises OSError, of which ssl.SSLError is one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.chain, certificate.key)
    return context


def _configuration(pair: Pair) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pair.key, pair.chain)])


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Refused(f"TLS: {path} cannot be read: {error.strerror}") from error
