"""The last value that is taken and the first that is not, in cryptography."""

import dataclasses
import json
import ssl
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from node.crypto import argon2, certificates, keyring
from node.crypto.certificates import (
    issue_directory_certificate,
    make_directory_root,
    make_passing_certificate,
    make_tls_identity,
    server_context,
    validity,
    why_not_valid,
)
from node.crypto.keys import SealKey
from node.crypto.sealing import OpenFailed, SealingKeys, open_small, seal_small
from node.crypto.signing import SigningKey, node_id
from node.errors import KeysError
from node.sandbox import children

NOW = 1_800_000_000.0
MIB = 2**20
NODE = node_id(SigningKey.new().public)


@pytest.mark.parametrize(("ops", "mebibytes"), [(3, 64), (16, 512), (3, 512), (16, 64)])
def test_argon2_takes_the_bounds_themselves(ops: int, mebibytes: int) -> None:
    assert argon2.Cost(ops, mebibytes * MIB).ops == ops


@pytest.mark.parametrize(
    ("ops", "size", "what"),
    [
        (2, 64 * MIB, "passes"),
        (17, 64 * MIB, "passes"),
        (3, 64 * MIB - 1, "memory"),
        (3, 512 * MIB + 1, "memory"),
    ],
)
def test_argon2_takes_nothing_past_its_bounds(ops: int, size: int, what: str) -> None:
    with pytest.raises(KeysError, match=what):
        argon2.Cost(ops, size)


@pytest.mark.parametrize(
    "ended", [children.Ended(1, bytes(32)), children.Ended(0, bytes(31)), children.Ended(1, b"")]
)
def test_child_that_failed_or_said_too_little_gives_no_key(
    ended: children.Ended, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "run", lambda *_, **__: ended)
    with pytest.raises(KeysError, match="it needs 256 MiB of free memory"):
        argon2.stretch(b"x", bytes(16), argon2.MODERATE)


def test_certificate_is_valid_from_its_first_second_to_before_its_last() -> None:
    der = make_tls_identity(NODE, NOW).certificate_der
    start, end = validity(der)
    assert why_not_valid(der, start) == why_not_valid(der, end - 1) == ""
    assert why_not_valid(der, end) == why_not_valid(der, end + 1) == "has expired"
    assert why_not_valid(der, start - 3600).startswith("is not valid yet, for another 1 h")
    assert why_not_valid(der, start - 3601).startswith("is not valid yet, for another 2 h")
    assert why_not_valid(der, start - 10 * 3600).startswith("is not valid yet, for another 10 h")


@pytest.mark.parametrize(
    "identity",
    [
        issue_directory_certificate(make_directory_root(NOW), NOW),
        make_passing_certificate(NOW),
    ],
)
def test_certificate_of_a_server_issues_no_others_and_serves(identity: Any) -> None:
    read = x509.load_der_x509_certificate(identity.certificate_der)
    constraints = read.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.value.ca is False
    context = server_context(identity)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.cert_store_stats()["x509"] == 0


def test_root_issues_servers_and_nothing_below_them() -> None:
    read = x509.load_der_x509_certificate(make_directory_root(NOW).certificate_der)
    constraints = read.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (constraints.ca, constraints.path_length) == (True, 0)


@pytest.mark.parametrize("kind", ["rsa", "another curve"])
def test_certificate_of_another_kind_of_key_is_no_nodes(kind: str) -> None:
    key: Any = (
        rsa.generate_private_key(65537, 2048)
        if kind == "rsa"
        else ec.generate_private_key(ec.SECP384R1())
    )
    builder = certificates._node_certificate(NODE, key.public_key(), 7, certificates._start(NOW))
    made = builder.sign(key, hashes.SHA256())
    der = made.public_bytes(serialization.Encoding.DER)
    with pytest.raises(ValueError, match="certificate"):
        certificates.check_own(der, NODE)


def _ring(*kinds: str) -> keyring.Keyring:
    return keyring.Keyring(tuple({"type": kind} for kind in kinds), {}, b"sealed")


def test_slot_of_a_kind_is_there_or_not_whatever_else_is() -> None:
    assert _ring("host").has_slot("host")
    assert not _ring("host").has_slot("passphrase")
    assert not _ring("recovery").has_slot("host")
    assert not _ring().has_slot("host")


def test_home_without_a_passphrase_says_so_and_one_with_another_does_too() -> None:
    with pytest.raises(KeysError, match="has no passphrase"):
        keyring.unlock_with_passphrase(_ring("host"), b"x")
    root = keyring.RootKey.new()
    slot = keyring.passphrase_slot(root, b"right", argon2.FAST_FOR_TESTS)
    with pytest.raises(KeysError, match="the passphrase is wrong"):
        keyring.unlock_with_passphrase(keyring.Keyring((slot,), {}, b""), b"wrong")


@pytest.mark.parametrize("form", ["emix-keyring/0", "emix-keyring/9", "", "zzz"])
def test_keyring_of_another_format_is_another_versions(form: str) -> None:
    value = {**json.loads(_ring("host").encode()), "format": form}
    with pytest.raises(KeysError, match="another version of emix"):
        keyring.Keyring.decode(json.dumps(value).encode())
    assert keyring.Keyring.decode(_ring("host").encode()) == _ring("host")


def test_keyring_and_its_kit_do_not_change() -> None:
    kit: Any = keyring.RecoveryKit.new()
    with pytest.raises(dataclasses.FrozenInstanceError):
        kit.recovery_private = b""
    ring: Any = _ring("host")
    with pytest.raises(dataclasses.FrozenInstanceError):
        ring.sealed = b""


def test_key_id_has_eight_bytes_and_is_of_its_key() -> None:
    ids = {SealKey.new().key_id for _ in range(50)}
    assert len(ids) == 50
    assert {len(one) for one in ids} == {8}


@given(st.binary(min_size=4, max_size=4), st.integers(0, 255))
def test_sealed_object_of_another_magic_or_version_has_an_unknown_format(
    magic: bytes, version: int
) -> None:
    keys = SealingKeys(b"k" * 32, "epoch")
    sealed = seal_small(keys, "kind", b"context", b"content")
    changed = magic + bytes([version]) + sealed[5:]
    if changed == sealed:
        assert open_small(keys, "kind", b"context", changed) == b"content"
        return
    with pytest.raises(OpenFailed, match="unknown format"):
        open_small(keys, "kind", b"context", changed)
