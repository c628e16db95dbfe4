"""Certificates of others: whatever is wrong with one is a ValueError, never a surprise."""

import datetime
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from node.crypto.certificates import (
    DIRECTORY_NAME,
    check_directory_root,
    fingerprint,
    issue_directory_certificate,
    make_directory_root,
    make_tls_identity,
    name_in,
    node_in,
    validity,
)
from node.domain.ids import NodeId

GOOD = make_tls_identity(NodeId(bytes(32)), time.time()).certificate_der


def with_an_extension_twice() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
    )
    for last in (4, 5):
        oid = x509.ObjectIdentifier(f"1.2.3.{last}")
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, b""), False)
    der = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    assert b"\x2a\x03\x05" in der
    return der.replace(b"\x2a\x03\x05", b"\x2a\x03\x04")  # 1.2.3.5, as the other


def test_certificate_that_the_library_has_its_own_errors_for_names_nobody() -> None:
    odd = with_an_extension_twice()
    with pytest.raises(x509.DuplicateExtension):
        _ = x509.load_der_x509_certificate(odd).extensions
    with pytest.raises(ValueError):
        name_in(odd)


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_certificate_with_one_byte_changed_is_read_or_is_a_value_error(at: int, other: int) -> None:
    data = bytearray(GOOD)
    data[at] ^= other
    try:
        assert isinstance(name_in(bytes(data)), str)
    except ValueError:
        return


def test_directorys_certificate_is_its_roots_and_of_its_name() -> None:
    now = time.time()
    root = make_directory_root(now)
    issued = issue_directory_certificate(root, now)
    assert name_in(issued.certificate_der) == DIRECTORY_NAME
    assert validity(issued.certificate_der)[1] > now + 390 * 86400
    assert fingerprint(issued.certificate_der) != fingerprint(root.certificate_der)
    certificate = x509.load_pem_x509_certificate(issued.certificate_pem)
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(root.certificate_pem))


def test_directorys_root_is_what_is_made_here_and_nothing_else() -> None:
    root = make_directory_root(time.time())
    check_directory_root(root.certificate_der)
    issued = issue_directory_certificate(root, time.time())
    for other in (issued.certificate_der, GOOD, root.certificate_der + b"\0", b""):
        with pytest.raises(ValueError):
            check_directory_root(other)


def test_certificate_of_who_answers_is_a_nodes_own() -> None:
    assert node_in(GOOD) == NodeId(bytes(32))
    root = make_directory_root(time.time())
    for other in (with_an_extension_twice(), root.certificate_der, GOOD + b"\0"):
        with pytest.raises(ValueError):
            node_in(other)
