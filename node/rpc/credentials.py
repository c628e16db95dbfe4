"""TLS credentials in which exactly the pinned certificates are trusted."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc

from node.crypto.certificates import TlsIdentity, der_to_pem
from node.rpc.settling import Asking

CHANGE_SECONDS = 0.5
"""The shortest time between two changes of the set of trusted certificates."""

_SETTLE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class TrustSnapshot:
    """What the peer server trusts at one moment: its own identity and the peers' certificates."""

    identity: TlsIdentity
    certificates: frozenset[bytes]  # DER


class _Fetcher:
    """Returns the trusted certificates to gRPC at every handshake.

    gRPC calls it on one thread at a time, under a lock. It returns a new configuration only if the
    set has changed by value: a returned configuration replaces the one that handshakes on other
    threads are about to use, and gRPC 1.85.1 crashes then (*measured*: 40 peers that connect at
    once end the process within a second). A new configuration is returned only when no other thread
    can be using the old one; see `node.rpc.settling`.
    """

    def __init__(self, snapshot: Callable[[], TrustSnapshot]) -> None:
        self._snapshot = snapshot
        self._given = snapshot()
        self._given_time = -math.inf
        self._asking = Asking()

    def first(self) -> grpc.ServerCertificateConfiguration:
        return _configuration(self._given)

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        self._asking.note()
        now = self._snapshot()
        if now == self._given:
            self._given = now  # the next comparison is of one object with itself
            return None
        # All handshakes wait while it is changed: peers that renew and renew must not hold them up.
        if time.monotonic() - self._given_time < CHANGE_SECONDS:
            return None
        if not self._asking.have_gone_on(_SETTLE_SECONDS):
            return None
        self._given, self._given_time = now, time.monotonic()
        return _configuration(now)


def server_credentials(snapshot: Callable[[], TrustSnapshot]) -> grpc.ServerCredentials:
    """Return credentials that ask `snapshot` at every handshake.

    A change may take effect only `CHANGE_SECONDS` after the previous one. So a removed peer may
    complete one more handshake, but no call: the guard checks trust again on every call.

    `snapshot` must do no I/O and raise nothing; after an exception gRPC would keep the old set.
    """
    fetcher = _Fetcher(snapshot)
    return grpc.dynamic_ssl_server_credentials(
        fetcher.first(), fetcher, require_client_authentication=True
    )


def _configuration(snapshot: TrustSnapshot) -> grpc.ServerCertificateConfiguration:
    identity = snapshot.identity
    roots = b"".join(der_to_pem(der) for der in snapshot.certificates)
    return grpc.ssl_server_certificate_configuration(
        [(identity.private_pem, identity.certificate_pem)],
        # With no root at all gRPC would not ask for a certificate: then trust only our own.
        root_certificates=roots or identity.certificate_pem,
    )


def introduction_credentials(identity: TlsIdentity) -> grpc.ServerCredentials:
    """Return credentials for a server that strangers may reach: no client certificate."""
    return grpc.ssl_server_credentials([(identity.private_pem, identity.certificate_pem)])


def renewed_credentials(identity: Callable[[], TlsIdentity]) -> grpc.ServerCredentials:
    """Return credentials without client certificates for a server whose identity changes."""
    fetcher = _Fetcher(lambda: TrustSnapshot(identity(), frozenset()))
    return grpc.dynamic_ssl_server_credentials(
        fetcher.first(), fetcher, require_client_authentication=False
    )


def client_credentials(
    identity: TlsIdentity | None, roots: Sequence[bytes]
) -> grpc.ChannelCredentials:
    """Return credentials that accept a server with one of these certificates, DER, only."""
    pem = b"".join(der_to_pem(der) for der in roots)
    if identity is None:
        return grpc.ssl_channel_credentials(pem)
    return grpc.ssl_channel_credentials(pem, identity.private_pem, identity.certificate_pem)
