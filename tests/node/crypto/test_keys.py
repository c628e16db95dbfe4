import pytest

from node.crypto import argon2, keyring
from node.crypto.certificates import make_tls_identity, validity
from node.crypto.keys import DataKey, SealKey, open_sealed_key, unwrap
from node.crypto.sealing import SealingKeys
from node.crypto.signing import SigningKey, facility_id, node_id, verify
from node.domain.ids import FacilityId, TransferId
from node.errors import BadDataKey, BadSignature, KeysError

EPOCH = SealingKeys(b"\1" * 32, "epoch")
ORIGIN = FacilityId(b"\2" * 32)


def test_wrapped_data_key_unwraps_only_in_its_own_context() -> None:
    key = DataKey.new()
    wrapped = key.wrap(EPOCH, 1, ORIGIN)
    assert unwrap(EPOCH, 1, ORIGIN, key.package_id, wrapped).package_id == key.package_id
    for epoch, origin, package in (
        (2, ORIGIN, key.package_id),
        (1, FacilityId(b"\3" * 32), key.package_id),
        (1, ORIGIN, DataKey.new().package_id),
    ):
        with pytest.raises(BadDataKey):
            unwrap(EPOCH, epoch, origin, package, wrapped)


def test_data_key_sealed_to_a_node_opens_there_and_for_that_transfer_only() -> None:
    key, receiver, transfer = DataKey.new(), SealKey.new(), TransferId.new()
    sealed = key.seal_to(receiver.public, transfer)
    opened = open_sealed_key(receiver.private, transfer, key.package_id, sealed)
    assert opened.package_id == key.package_id
    with pytest.raises(BadDataKey):
        open_sealed_key(SealKey.new().private, transfer, key.package_id, sealed)
    with pytest.raises(BadDataKey):
        open_sealed_key(receiver.private, TransferId.new(), key.package_id, sealed)
    with pytest.raises(BadDataKey):
        open_sealed_key(receiver.private, transfer, DataKey.new().package_id, sealed)


def test_signature_is_bound_to_its_type_key_and_bytes() -> None:
    key = SigningKey.new()
    signature = key.sign("manifest", b"body")
    verify(key.public, "manifest", b"body", signature)
    for public, kind, body in (
        (key.public, "receipt", b"body"),
        (SigningKey.new().public, "manifest", b"body"),
        (key.public, "manifest", b"bodz"),
        (b"\0" * 32, "manifest", b"body"),  # a small-order point
        (b"short", "manifest", b"body"),
    ):
        with pytest.raises(BadSignature):
            verify(public, kind, body, signature)


def test_facility_and_node_ids_of_one_key_differ() -> None:
    key = SigningKey.new().public
    assert facility_id(key).digest != node_id(key).digest


def _keyring() -> tuple[keyring.Keyring, keyring.RecoveryKit, keyring.Secrets]:
    root, kit = keyring.RootKey.new(), keyring.RecoveryKit.new()
    node_key = SigningKey.new()
    content = keyring.Secrets(
        node_key,
        (SealKey.new(),),
        (make_tls_identity(node_id(node_key.public), 1_800_000_000.0),),
        {1: b"\5" * 32},
    )
    slots = (
        keyring.passphrase_slot(root, b"correct horse", argon2.FAST_FOR_TESTS),
        keyring.host_slot(root, b"\6" * 32),
        keyring.recovery_slot(root, kit.recovery_public),
    )
    ring = keyring.Keyring(slots, {"x": b"y"}, keyring.seal_secrets(root, content))
    return keyring.Keyring.decode(ring.encode()), kit, content


def test_every_slot_opens_the_keyring_and_nothing_else_does() -> None:
    ring, kit, content = _keyring()
    for root in (
        keyring.unlock_with_passphrase(ring, b"correct horse"),
        keyring.unlock_with_host_key(ring, b"\6" * 32),
        keyring.unlock_with_kit(ring, keyring.RecoveryKit.decode(kit.encode("F"))),
    ):
        opened = ring.open(root)
        assert opened.node_key.seed == content.node_key.seed
        assert opened.epoch == 1
        assert opened.tls == content.tls
    with pytest.raises(KeysError, match="passphrase"):
        keyring.unlock_with_passphrase(ring, b"wrong")
    with pytest.raises(KeysError, match="host key"):
        keyring.unlock_with_host_key(ring, b"\7" * 32)
    with pytest.raises(KeysError, match="recovery"):
        keyring.unlock_with_kit(ring, keyring.RecoveryKit.new())
    with pytest.raises(KeysError):
        ring.open(keyring.RootKey.new())


@pytest.mark.parametrize(
    ("ops", "memory"), [(2, 2**28), (17, 2**28), (3, 2**25), (3, 2**30), (2**31, 2**40)]
)
def test_absurd_argon2_parameters_are_refused_before_anything_is_allocated(
    ops: int, memory: int
) -> None:
    ring, _, _ = _keyring()
    slot = {**ring.slots[0], "ops": ops, "memory_bytes": memory}
    tampered = keyring.Keyring((slot,), ring.public, ring.sealed)
    with pytest.raises(KeysError, match="Argon2id"):
        keyring.unlock_with_passphrase(tampered, b"correct horse")


@pytest.mark.parametrize("junk", [b"", b"{}", b"[]", b"\xff", b'{"format": "emix-keyring/1"}'])
def test_junk_keyring_raises_only_keys_error(junk: bytes) -> None:
    with pytest.raises(KeysError):
        keyring.Keyring.decode(junk)
    with pytest.raises(KeysError):
        keyring.RecoveryKit.decode(junk)


def test_certificate_is_valid_for_ninety_days() -> None:
    tls = make_tls_identity(node_id(b"\1" * 32), 1_800_000_000.0)
    start, end = validity(tls.certificate_der)
    assert end == 1_800_000_000.0 + 90 * 86400
    assert start == 1_800_000_000.0 - 86400, "clocks differ, and are told of, which TLS cannot"
