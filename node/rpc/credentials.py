"""TLS credentials in which exactly the pinned certificates are trusted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc

from node.crypto.certificates import TlsIdentity, der_to_pem


@dataclass(frozen=True, slots=True)
class TrustSnapshot:
    """What the peer server trusts at one moment: its own identity and the peers' certificates."""

    identity: TlsIdentity
    certificates: tuple[bytes, ...]  # DER


def server_credentials(snapshot: Callable[[], TrustSnapshot]) -> grpc.ServerCredentials:
    """Return credentials that ask `snapshot` at every handshake.

    `snapshot` does no I/O and raises nothing: gRPC would keep the old set. That it might is
    why the guard decides about trust once more, on every call.
    """

    def fetch() -> grpc.ServerCertificateConfiguration:
        now = snapshot()
        roots = b"".join(der_to_pem(der) for der in now.certificates)
        return grpc.ssl_server_certificate_configuration(
            [(now.identity.private_pem, now.identity.certificate_pem)],
            # With no root at all gRPC would not ask for a certificate: then trust only our own.
            root_certificates=roots or now.identity.certificate_pem,
        )

    return grpc.dynamic_ssl_server_credentials(
        fetch(), lambda: fetch(), require_client_authentication=True
    )


def introduction_credentials(identity: TlsIdentity) -> grpc.ServerCredentials:
    """Return credentials for a server that strangers may reach: no client certificate."""
    return grpc.ssl_server_credentials([(identity.private_pem, identity.certificate_pem)])


def client_credentials(
    identity: TlsIdentity | None, roots: Sequence[bytes]
) -> grpc.ChannelCredentials:
    """Return credentials that accept a server with one of these certificates, DER, only."""
    pem = b"".join(der_to_pem(der) for der in roots)
    if identity is None:
        return grpc.ssl_channel_credentials(pem)
    return grpc.ssl_channel_credentials(pem, identity.private_pem, identity.certificate_pem)
