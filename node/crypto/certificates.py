"""TLS keys and certificates: ECDSA P-256, self-signed, 90 days, one constant subject.

gRPC refuses Ed25519 certificates, so TLS has keys of its own, which the node key signs (see
`node.documents.identity`). All nodes use the same subject name, because a server shows the
subject names of its roots to every caller and that must not be the list of partners; key
identifiers tell such certificates apart.
"""

import datetime
import ssl
import tempfile
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from node.crypto.digests import sha256
from node.domain.ids import NodeId

LIFETIME_DAYS = 90
_EXTENSIONS = {
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    ExtensionOID.SUBJECT_KEY_IDENTIFIER,
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.EXTENDED_KEY_USAGE,
}
_SUBJECT = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "emix-node")])

DIRECTORY_NAME = "directory.emix.invalid"
"""The name in every directory's certificate: whose it is follows from its root."""
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
    return f"{node_id}.emix.invalid"


def make_tls_identity(node_id: NodeId, now: float) -> TlsIdentity:
    """Return a fresh TLS key and its certificate, valid from ten minutes before `now`."""
    key = ec.generate_private_key(ec.SECP256R1())
    start = datetime.datetime.fromtimestamp(now, datetime.UTC) - datetime.timedelta(minutes=10)
    key_identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    usages = x509.ExtendedKeyUsage(
        [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_SUBJECT)
        .issuer_name(_SUBJECT)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=LIFETIME_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(server_name(node_id))]), False)
        .add_extension(key_identifier, False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_identifier), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .add_extension(usages, False)
        .sign(key, hashes.SHA256())
    )
    return TlsIdentity(_private_pem(key), certificate.public_bytes(serialization.Encoding.PEM))


def check_own(certificate_der: bytes, node_id: NodeId) -> None:
    """Hold that a certificate is one that this node made for itself, in just our form.

    A node that names another's certificate as its own would take over the other's calls, and
    one of another form can upset gRPC's loading of all others.

    Raises:
        ValueError: it is not.
    """
    try:
        certificate = x509.load_der_x509_certificate(certificate_der)
        key = certificate.public_key()
        right = (
            certificate.version is x509.Version.v3
            and isinstance(key, ec.EllipticCurvePublicKey)
            and isinstance(key.curve, ec.SECP256R1)
            and certificate.subject == certificate.issuer == _SUBJECT
            and certificate.public_bytes(serialization.Encoding.DER) == certificate_der
            and {e.oid for e in certificate.extensions} == _EXTENSIONS
            and name_in(certificate_der) == server_name(node_id)
        )
        if right:
            certificate.verify_directly_issued_by(certificate)
    except Exception as exc:  # the library has many errors for foreign bytes; all mean no
        raise ValueError("not a certificate of the form that nodes use") from exc
    if not right:
        raise ValueError("not this node's own certificate")


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
    return _issue(key, key, _DIRECTORY_ROOT, None, now, _ROOT_DAYS)


def issue_directory_certificate(root: TlsIdentity, now: float) -> TlsIdentity:
    """Return a fresh TLS identity for a directory process, signed by the root."""
    root_key = serialization.load_pem_private_key(root.private_pem, None)
    if not isinstance(root_key, ec.EllipticCurvePrivateKey):
        raise ValueError("not a directory's root key")
    key = ec.generate_private_key(ec.SECP256R1())
    return _issue(key, root_key, _DIRECTORY, DIRECTORY_NAME, now, DIRECTORY_DAYS)


def make_passing_certificate(now: float) -> TlsIdentity:
    """Return a fresh TLS identity that nobody verifies: for TLS that disguises and no more."""
    key = ec.generate_private_key(ec.SECP256R1())
    return _issue(key, key, _RELAY, _RELAY_NAME, now, _ROOT_DAYS)


def server_context(tls: TlsIdentity) -> ssl.SSLContext:
    """Return what the standard library serves TLS with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with tempfile.NamedTemporaryFile() as file:  # it takes files only
        file.write(tls.private_pem + tls.certificate_pem)
        file.flush()
        context.load_cert_chain(file.name)
    return context


def _issue(
    key: ec.EllipticCurvePrivateKey,
    issuer: ec.EllipticCurvePrivateKey,
    subject: x509.Name,
    server_name: str | None,
    now: float,
    days: int,
) -> TlsIdentity:
    start = datetime.datetime.fromtimestamp(now, datetime.UTC) - datetime.timedelta(minutes=10)
    is_root = server_name is None
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    issuers = x509.SubjectKeyIdentifier.from_public_key(issuer.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(_DIRECTORY_ROOT)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=days))
        .add_extension(own, False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuers), False
        )
        .add_extension(x509.BasicConstraints(ca=is_root, path_length=0 if is_root else None), True)
    )
    if server_name is not None:
        names = x509.SubjectAlternativeName([x509.DNSName(server_name)])
        usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        builder = builder.add_extension(names, False).add_extension(usages, False)
    certificate = builder.sign(issuer, hashes.SHA256())
    return TlsIdentity(_private_pem(key), certificate.public_bytes(serialization.Encoding.PEM))


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
