"""A node's certificate is just what an honest node makes: each single deviation is refused."""

import datetime
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from node.crypto.certificates import check_own, make_tls_identity, server_name
from node.domain.ids import NodeId

NODE = NodeId(b"n" * 32)
NOW = 1_800_000_000.0
KEY = ec.generate_private_key(ec.SECP256R1())
OTHER_KEY = ec.generate_private_key(ec.SECP256R1())
START = datetime.datetime.fromtimestamp(NOW, datetime.UTC)
SKI = x509.SubjectKeyIdentifier.from_public_key(KEY.public_key())
AKI = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(SKI)
OWN_NAME = x509.DNSName(server_name(NODE))
USAGES = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
HONEST: dict[str, tuple[x509.ExtensionType, bool]] = {
    "names": (x509.SubjectAlternativeName([OWN_NAME]), False),
    "own": (SKI, False),
    "authority": (AKI, False),
    "constraints": (x509.BasicConstraints(ca=True, path_length=0), True),
    "usages": (x509.ExtendedKeyUsage(USAGES), False),
}


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def made(
    *,
    subject: x509.Name = name("emix-node"),  # noqa: B008
    issuer: x509.Name = name("emix-node"),  # noqa: B008
    key: Any = KEY,
    signed_by: Any = KEY,
    serial: int = 12345,
    start: datetime.datetime = START,
    lifetime: datetime.timedelta = datetime.timedelta(days=91),
    extensions: dict[str, tuple[x509.ExtensionType, bool]] = HONEST,
    algorithm: Any = hashes.SHA256(),  # noqa: B008
) -> bytes:
    """A certificate that is honest but for what is said otherwise."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(start)
        .not_valid_after(start + lifetime)
    )
    for value, is_critical in extensions.values():
        builder = builder.add_extension(value, is_critical)
    return builder.sign(signed_by, algorithm).public_bytes(serialization.Encoding.DER)


def but(**changes: tuple[x509.ExtensionType, bool] | None) -> dict[str, Any]:
    """The honest extensions but for some, in order."""
    changed = {**HONEST, **changes}
    return {"extensions": {k: v for k, v in changed.items() if v is not None}}


def deviations() -> Iterator[Any]:
    second = datetime.timedelta(seconds=1)
    days = datetime.timedelta(days=91)
    p384 = ec.generate_private_key(ec.SECP384R1())
    both = x509.AuthorityKeyIdentifier(SKI.digest, [x509.DirectoryName(name("emix-node"))], 12345)
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"x")
    cases: dict[str, dict[str, Any]] = {
        "subject": {"subject": name("emix-node2")},
        "issuer": {"issuer": name("emix-directory-root")},
        "both names": {"subject": name("Billings"), "issuer": name("Billings")},
        "empty names": {"subject": x509.Name([]), "issuer": x509.Name([])},
        "a second too long": {"lifetime": days + second},
        "a second too short": {"lifetime": days - second},
        "ten years": {"lifetime": 40 * days},
        "signed by another": {"signed_by": OTHER_KEY},
        "SHA-384": {"algorithm": hashes.SHA384()},
        "P-384": {"key": p384, "signed_by": p384},
        "no name": but(names=None),
        "another's name": but(
            names=(
                x509.SubjectAlternativeName([x509.DNSName(server_name(NodeId(bytes(32))))]),
                False,
            )
        ),
        "a name more": but(
            names=(x509.SubjectAlternativeName([OWN_NAME, x509.DNSName("a.example")]), False)
        ),
        "an address more": but(
            names=(x509.SubjectAlternativeName([OWN_NAME, x509.RFC822Name("a@b.example")]), False)
        ),
        "critical name": but(names=(HONEST["names"][0], True)),
        "another's key identifier": but(
            own=(x509.SubjectKeyIdentifier.from_public_key(OTHER_KEY.public_key()), False)
        ),
        "no key identifier": but(own=None),
        "critical key identifier": but(own=(SKI, True)),
        "another's authority": but(
            authority=(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(OTHER_KEY.public_key()),
                False,
            )
        ),
        "authority with an issuer": but(authority=(both, False)),
        "no authority": but(authority=None),
        "no path length": but(constraints=(x509.BasicConstraints(True, None), True)),
        "path length 1": but(constraints=(x509.BasicConstraints(True, 1), True)),
        "no authority of its own": but(constraints=(x509.BasicConstraints(False, None), True)),
        "constraints that need not be": but(constraints=(HONEST["constraints"][0], False)),
        "no constraints": but(constraints=None),
        "one usage": but(usages=(x509.ExtendedKeyUsage(USAGES[:1]), False)),
        "other order of usages": but(usages=(x509.ExtendedKeyUsage(USAGES[::-1]), False)),
        "any usage": but(
            usages=(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), False)
        ),
        "a usage more": but(
            usages=(x509.ExtendedKeyUsage([*USAGES, ExtendedKeyUsageOID.CODE_SIGNING]), False)
        ),
        "critical usages": but(usages=(HONEST["usages"][0], True)),
        "no usages": but(usages=None),
        "an extension more": but(odd=(odd, False)),
        "a critical one more": but(odd=(odd, True)),
        "name constraints": but(
            odd=(x509.NameConstraints([x509.DNSName("b.example")], None), True)
        ),
        "other order": {"extensions": dict(reversed(HONEST.items()))},
    }
    for case, changes in cases.items():
        yield pytest.param(changes, id=case)


def test_honest_certificate_is_taken() -> None:
    check_own(made(), NODE)
    check_own(make_tls_identity(NODE, NOW).certificate_der, NODE)


@pytest.mark.parametrize("changes", list(deviations()))
def test_each_deviation_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        check_own(made(**changes), NODE)


# -- what the library does not make ---------------------------------------------------------


def der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    octets = size.to_bytes(2, "big").lstrip(b"\0")
    return bytes([tag, 0x80 | len(octets)]) + octets + content


def resigned(edit: Callable[[bytes], bytes]) -> bytes:
    """An honest certificate with its signed part edited, and then signed."""
    tbs = x509.load_der_x509_certificate(made()).tbs_certificate_bytes
    content = tbs[2 + (tbs[1] & 0x7F) :] if tbs[1] & 0x80 else tbs[2:]
    edited = der(0x30, edit(content))
    signature = KEY.sign(edited, ec.ECDSA(hashes.SHA256()))
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")
    return der(0x30, edited + algorithm + der(0x03, b"\0" + signature))


def swap(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def edit(content: bytes) -> bytes:
        assert old in content
        return content.replace(old, new, 1)

    return edit


def in_spki(point: bytes) -> Callable[[bytes], bytes]:
    """Another encoding of the same public key."""
    whole = KEY.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    algorithm = bytes.fromhex("301306072a8648ce3d020106082a8648ce3d030107")
    return swap(whole, der(0x30, algorithm + der(0x03, b"\0" + point)))


def point(form: serialization.PublicFormat) -> bytes:
    return KEY.public_key().public_bytes(serialization.Encoding.X962, form)


SERIAL = bytes.fromhex("02023039")
EDITS = {
    "serial zero": swap(SERIAL, b"\x02\x01\x00"),
    "negative serial": swap(SERIAL, b"\x02\x02\xb0\x39"),
    "serial of 21 octets": swap(SERIAL, der(0x02, b"\x01" * 21)),
    "serial with a zero before": swap(SERIAL, b"\x02\x03\x00\x30\x39"),
    "version 1": swap(bytes.fromhex("a003020102"), b""),
    "version 2": swap(bytes.fromhex("a003020102"), bytes.fromhex("a003020101")),
    "printable names": swap(b"\x0c\x09emix-node", b"\x13\x09emix-node"),
    "general time": swap(b"\x17\x0d27", b"\x18\x0f2027"),
    "compressed point": in_spki(point(serialization.PublicFormat.CompressedPoint)),
    "hybrid point": in_spki(
        bytes([6 + (point(serialization.PublicFormat.UncompressedPoint)[-1] & 1)])
        + point(serialization.PublicFormat.UncompressedPoint)[1:]
    ),
    "true as 1": swap(b"\x01\x01\xff\x04\x08", b"\x01\x01\x01\x04\x08"),
    "critical said to be false": swap(b"\x55\x1d\x25\x04", b"\x55\x1d\x25\x01\x01\x00\x04"),
    "bytes after": lambda content: content + b"\x05\x00",
}


def test_edited_by_nothing_it_is_honest() -> None:
    check_own(resigned(lambda content: content), NODE)
    uncompressed = point(serialization.PublicFormat.UncompressedPoint)
    check_own(resigned(in_spki(uncompressed)), NODE)


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_each_other_encoding_is_refused(edit: Callable[[bytes], bytes]) -> None:
    with pytest.raises(ValueError):
        check_own(resigned(edit), NODE)


@pytest.mark.parametrize("algorithm", ["300c06082a8648ce3d0403020500", "300a06082a8648ce3d040303"])
def test_other_name_of_the_signatures_algorithm_is_refused(algorithm: str) -> None:
    ours, theirs = bytes.fromhex("300a06082a8648ce3d040302"), bytes.fromhex(algorithm)
    certificate = made()
    at = certificate.rindex(ours)
    body = certificate[4:at] + theirs + certificate[at + len(ours) :]
    with pytest.raises(ValueError):
        check_own(der(0x30, body), NODE)


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_no_byte_can_be_changed(at: int, other: int) -> None:
    data = bytearray(made())
    data[at % len(data)] ^= other
    with pytest.raises(ValueError):
        check_own(bytes(data), NODE)


@given(st.integers(1, 2**159 - 1), st.integers(0, 2**32))
def test_every_serial_and_moment_of_an_honest_node_is_taken(serial: int, moment: int) -> None:
    start = datetime.datetime.fromtimestamp(moment, datetime.UTC)
    check_own(made(serial=serial, start=start), NODE)
