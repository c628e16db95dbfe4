"""TLS keys and certificates: ECDSA P-256, self-signed, 90 days, one constant subject.

gRPC refuses Ed25519 certificates, so TLS has keys of its own, which the node key signs (see
`node.documents.identity`). All nodes use the same subject name, because a server shows the
subject names of its roots to every caller and that must not be the list of partners; key
identifiers tell such certificates apart.
"""

import datetime
import math
import ssl
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache, partial

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from node.crypto.digests import sha256
from node.domain.ids import NodeId

LIFETIME_DAYS = 91
_KEPT = 4096  # parsed certificates that are cached
_EARLIER_SECONDS = 86400  # clock differences are reported by Hello, not by a failed handshake
"""How long before its creation a certificate becomes valid, since clocks differ."""

_NODE_SUFFIX = ".emix.invalid"
_ECDSA_WITH_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")  # RFC 5758, section 3.2
_SUBJECT = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "emix-node")])

DIRECTORY_NAME = "directory.emix.invalid"
"""The name in every directory's certificate; the root identifies the network."""
_RELAY_NAME = "relay.emix.invalid"
DIRECTORY_DAYS = 397
_ROOT_DAYS = 20 * 365
_DIRECTORY = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "emix-directory")])
_RELAY = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "emix-relay")])
_DIRECTORY_ROOT = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "emix-directory-root")])


@dataclass(frozen=True, slots=True)
class TlsIdentity:
    """A TLS private key with its certificate."""

    private_pem: bytes
    certificate_pem: bytes

    def __repr__(self) -> str:
        return "<TlsIdentity>"

    @property
    def certificate_der(self) -> bytes:
        """The certificate's exact bytes, which the TLS binding signs."""
        return pem_to_der(self.certificate_pem)


def server_name(node_id: NodeId) -> str:
    """Return the name that a node's certificate carries (52 characters and a suffix)."""
    return f"{node_id}{_NODE_SUFFIX}"


def make_tls_identity(node_id: NodeId, now: float) -> TlsIdentity:
    """Return a fresh TLS key and its certificate, valid from a day before `now`."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _node_certificate(node_id, key.public_key(), x509.random_serial_number(), _start(now))
    certificate = builder.sign(key, hashes.SHA256())
    return TlsIdentity(_private_pem(key), certificate.public_bytes(serialization.Encoding.PEM))


def why_not_valid(certificate_der: bytes, now: float) -> str:
    """Return what to say of a certificate: too early, or too late; empty if it is valid."""
    start, end = validity(certificate_der)
    if now < start:
        hours = math.ceil((start - now) / 3600)
        return f"is not valid yet, for another {hours} h: one of the two clocks is wrong"
    return "has expired" if now >= end else ""


def check_own(certificate_der: bytes, node_id: NodeId) -> None:
    """Check that a certificate is, byte for byte, one that this node could have made for itself.

    A node that presented another node's certificate as its own would take over its calls, and a
    certificate of another form can break gRPC's loading of all the others. An honest node chooses
    only the key, the serial number and the start of validity. So the certificate is rebuilt from
    these and compared as a whole.

    Raises:
        ValueError: it is not such a certificate.
    """
    _check_made(certificate_der, partial(_node_certificate, node_id))


def node_in(certificate_der: bytes) -> NodeId:
    """Return the node whose own certificate this is; `ValueError` as `check_own`."""
    node_id = NodeId.parse(name_in(certificate_der).removesuffix(_NODE_SUFFIX))
    check_own(certificate_der, node_id)
    return node_id


def check_directory_root(certificate_der: bytes) -> None:
    """Check that a certificate is what `make_directory_root` makes; `ValueError` if not."""
    _check_made(certificate_der, _root_certificate)


_Rebuild = Callable[[ec.EllipticCurvePublicKey, int, datetime.datetime], x509.CertificateBuilder]


def _check_made(certificate_der: bytes, rebuild: _Rebuild) -> None:
    """Check that a self-signed certificate is what a builder makes of its own key and serial."""
    try:
        certificate = x509.load_der_x509_certificate(certificate_der)
        key = certificate.public_key()
        is_right = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(
            key.curve, ec.SECP256R1
        )
        if is_right and isinstance(key, ec.EllipticCurvePublicKey):
            start = certificate.not_valid_before_utc
            # `made` is signed with a throwaway key: only its signed part is compared.
            made = rebuild(key, certificate.serial_number, start).sign(_anyones(), hashes.SHA256())
            signature = encode_dss_signature(*decode_dss_signature(certificate.signature))
            is_right = certificate_der == _assembled(made.tbs_certificate_bytes, signature)
            key.verify(signature, made.tbs_certificate_bytes, ec.ECDSA(hashes.SHA256()))
    except Exception as exc:  # the library raises many kinds of errors for foreign bytes
        raise ValueError("not a certificate of the form that is made here") from exc
    if not is_right:
        raise ValueError("the certificate differs from what emix would make of this key")


def _assembled(signed: bytes, signature: bytes) -> bytes:
    """Return a certificate of its signed part and an ECDSA signature (RFC 5280, section 4.1)."""
    return _der(0x30, signed + _ECDSA_WITH_SHA256 + _der(0x03, b"\0" + signature))


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + content


@cache
def _anyones() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _start(now: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(now) - _EARLIER_SECONDS, datetime.UTC)


def _node_certificate(
    node_id: NodeId, key: ec.EllipticCurvePublicKey, serial: int, start: datetime.datetime
) -> x509.CertificateBuilder:
    own = x509.SubjectKeyIdentifier.from_public_key(key)
    usages = x509.ExtendedKeyUsage(
        [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    )
    authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
    return (
        x509.CertificateBuilder()
        .subject_name(_SUBJECT)
        .issuer_name(_SUBJECT)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=LIFETIME_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(server_name(node_id))]), False)
        .add_extension(own, False)
        .add_extension(authority, False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .add_extension(usages, False)
    )


@lru_cache(_KEPT)  # each call of a peer asks
def validity(certificate_der: bytes) -> tuple[float, float]:
    """Return from when and until when a certificate is valid, in seconds since 1970.

    Raises:
        ValueError: these bytes are not a certificate of the form that nodes use.
    """
    certificate = x509.load_der_x509_certificate(certificate_der)
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("a node's TLS key must be ECDSA P-256")
    return (
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
    )


def name_in(certificate_der: bytes) -> str:
    """Return the first DNS name that a certificate carries; `ValueError` if it has none."""
    try:
        certificate = x509.load_der_x509_certificate(certificate_der)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        found: list[str] = names.value.get_values_for_type(x509.DNSName)
    except Exception as exc:  # the library has many errors for foreign bytes; all mean no
        raise ValueError("the certificate names no host") from exc
    if not found:
        raise ValueError("the certificate names no host")
    return found[0]


@lru_cache(_KEPT)  # each call of a peer asks
def pem_to_der(pem: bytes) -> bytes:
    """Return the DER form of one PEM certificate; `ValueError` if it is none."""
    return x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)


def der_to_pem(der: bytes) -> bytes:
    """Return the PEM form of one DER certificate; `ValueError` if it is none."""
    return x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM)


def fingerprint(certificate_der: bytes) -> bytes:
    """Return the SHA-256 digest that names a certificate."""
    return sha256(certificate_der)


def make_directory_root(now: float) -> TlsIdentity:
    """Return a fresh key that signs a directory's TLS certificates: kept with the operator."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _root_certificate(key.public_key(), x509.random_serial_number(), _start(now))
    certificate = builder.sign(key, hashes.SHA256())
    return TlsIdentity(_private_pem(key), certificate.public_bytes(serialization.Encoding.PEM))


def issue_directory_certificate(root: TlsIdentity, now: float) -> TlsIdentity:
    """Return a fresh TLS identity for a directory process, signed by the root."""
    root_key = serialization.load_pem_private_key(root.private_pem, None)
    if not isinstance(root_key, ec.EllipticCurvePrivateKey):
        raise ValueError("not a directory's root key")
    key = ec.generate_private_key(ec.SECP256R1())
    return _issue(key, root_key, _DIRECTORY, DIRECTORY_NAME, now, DIRECTORY_DAYS)


def make_passing_certificate(now: float) -> TlsIdentity:
    """Return a fresh TLS identity that nobody verifies: for TLS that only passes firewalls."""
    key = ec.generate_private_key(ec.SECP256R1())
    return _issue(key, key, _RELAY, _RELAY_NAME, now, _ROOT_DAYS)


def server_context(tls: TlsIdentity) -> ssl.SSLContext:
    """Return an `ssl` context for serving TLS with the standard library."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with tempfile.NamedTemporaryFile() as file:  # `ssl` loads keys from files only
        file.write(tls.private_pem + tls.certificate_pem)
        file.flush()
        context.load_cert_chain(file.name)
    return context


def _root_certificate(
    key: ec.EllipticCurvePublicKey, serial: int, start: datetime.datetime
) -> x509.CertificateBuilder:
    end = start + datetime.timedelta(days=_ROOT_DAYS)
    builder = _issued(key, key, _DIRECTORY_ROOT, serial, start, end)
    return builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), True)


def _issue(
    key: ec.EllipticCurvePrivateKey,
    issuer: ec.EllipticCurvePrivateKey,
    subject: x509.Name,
    server_name: str,
    now: float,
    days: int,
) -> TlsIdentity:
    start = _start(now)
    end = start + datetime.timedelta(days=days)
    serial = x509.random_serial_number()
    certificate = (
        _issued(key.public_key(), issuer.public_key(), subject, serial, start, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(server_name)]), False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
        .sign(issuer, hashes.SHA256())
    )
    return TlsIdentity(_private_pem(key), certificate.public_bytes(serialization.Encoding.PEM))


def _issued(
    key: ec.EllipticCurvePublicKey,
    issuer: ec.EllipticCurvePublicKey,
    subject: x509.Name,
    serial: int,
    start: datetime.datetime,
    end: datetime.datetime,
) -> x509.CertificateBuilder:
    own = x509.SubjectKeyIdentifier.from_public_key(key)
    issuers = x509.SubjectKeyIdentifier.from_public_key(issuer)
    authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuers)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(_DIRECTORY_ROOT)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(own, False)
        .add_extension(authority, False)
    )


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
