"""An envelope opens as it was written, under its own name, or it does not open at all."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from node.crypto.digests import digest
from node.crypto.keyring import Secrets
from node.domain.ids import FacilityId, PackageId
from node.errors import StoreDenied, StoreError
from node.store.envelopes import Envelope, Envelopes
from tests.integration.attacks.users import folder_of_user
from tests.node.store.test_denied import as_root, as_user
from tests.support.stores import new_secrets

SECRETS, _ = new_secrets(epochs=2)
ME, PEER = FacilityId(digest(b"me")), FacilityId(digest(b"peer"))
NAME, OTHER = PackageId(digest(b"package")), PackageId(digest(b"other"))
FULL = Envelope(NAME, ME, 2, b"wrapped", b"manifest" * 100, b"delivery", b"findings")
BARE = Envelope(OTHER, ME, 1, b"w", b"", b"")


@pytest.fixture
def envelopes(tmp_path: Path) -> Envelopes:
    return Envelopes(tmp_path / "envelopes", SECRETS)


def only(envelopes: Envelopes) -> Path:
    (path,) = envelopes.paths()
    return path


def test_envelopes_come_out_as_they_went_in(envelopes: Envelopes) -> None:
    envelopes.put_all([FULL, BARE])
    found = {envelopes.read(path).package_id: envelopes.read(path) for path in envelopes.paths()}
    assert found == {NAME: FULL, OTHER: BARE}
    assert {envelopes.epoch_of(path) for path in envelopes.paths()} == {1, 2}
    assert b"manifest" not in b"".join(path.read_bytes() for path in envelopes.paths())


def test_envelope_is_replaced_whole(envelopes: Envelopes) -> None:
    envelopes.put(FULL)
    envelopes.put(replace(FULL, epoch=1, findings=b""))
    assert envelopes.read(only(envelopes)) == replace(FULL, epoch=1, findings=b"")


def test_name_states_what_it_was_made_of(envelopes: Envelopes) -> None:
    name = envelopes.name(ME, NAME)
    assert envelopes.named(name) == (NAME.digest, ME.digest[:8])
    for foreign in (name.upper(), name[:-1], f"{name}0", f"{name} ", name[1:], "notes.txt", ""):
        assert envelopes.named(foreign) != (NAME.digest, ME.digest[:8])


def test_packages_of_two_facilities_never_share_an_envelope(envelopes: Envelopes) -> None:
    envelopes.put_all([FULL, replace(FULL, origin=PEER, manifest=b"theirs")])
    envelopes.remove(PEER, NAME)
    envelopes.remove(PEER, NAME)
    assert envelopes.read(only(envelopes)) == FULL
    assert only(envelopes).name == envelopes.name(ME, NAME)


@pytest.mark.parametrize("at", [0, 3, 12, 30, -1])
def test_envelope_of_which_a_bit_is_another_does_not_open(envelopes: Envelopes, at: int) -> None:
    envelopes.put(FULL)
    data = bytearray(only(envelopes).read_bytes())
    data[at] ^= 1
    only(envelopes).write_bytes(data)
    with pytest.raises(StoreError, match=only(envelopes).name):
        envelopes.read(only(envelopes))


@pytest.mark.parametrize("size", [0, 3, 12, 40, -1])
def test_envelope_that_was_cut_off_does_not_open(envelopes: Envelopes, size: int) -> None:
    envelopes.put(FULL)
    path = only(envelopes)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(StoreError, match=path.name):
        envelopes.read(path)
    if 0 <= size < 12:
        with pytest.raises(StoreError, match=path.name):
            envelopes.epoch_of(path)


def test_epoch_of_what_is_no_envelope_is_not_believed(envelopes: Envelopes) -> None:
    envelopes.put(FULL)
    path = only(envelopes)
    path.write_bytes(b"emxd" + path.read_bytes()[4:])
    with pytest.raises(StoreError, match="is not an envelope"):
        envelopes.epoch_of(path)


def test_envelope_opens_under_its_own_name_and_epoch_only(envelopes: Envelopes) -> None:
    envelopes.put(FULL)
    data = only(envelopes).read_bytes()
    only(envelopes).write_bytes(data[:4] + (1).to_bytes(8, "little") + data[12:])
    with pytest.raises(StoreError, match="cannot be decrypted"):
        envelopes.read(only(envelopes))
    for name in (envelopes.name(ME, OTHER), "no-package"):
        only(envelopes).rename(only(envelopes).with_name(name))
        only(envelopes).write_bytes(data)
        with pytest.raises(StoreError, match="cannot be decrypted"):
            envelopes.read(only(envelopes))


def test_envelope_of_an_epoch_that_was_destroyed_does_not_open(envelopes: Envelopes) -> None:
    envelopes.put(FULL)
    left = Secrets(SECRETS.node_key, SECRETS.seal_keys, SECRETS.tls, {1: SECRETS.epochs[1]})
    problem = "cannot be decrypted: the key of epoch 2 has been destroyed"
    with pytest.raises(StoreError, match=problem):
        Envelopes(only(envelopes).parent, left).read(only(envelopes))


def test_what_a_kill_left_half_written_is_no_envelope_and_goes(envelopes: Envelopes) -> None:
    envelopes.put(FULL)
    half = only(envelopes).with_name(".0123.tmp")
    half.write_bytes(b"half")
    assert [envelopes.read(path) for path in envelopes.paths()] == [FULL]
    Envelopes(half.parent, SECRETS)
    assert not half.exists()


@as_root
def test_envelope_that_may_not_be_read_is_not_called_damaged() -> None:
    with folder_of_user() as home:
        envelopes = Envelopes(home / "envelopes", SECRETS)
        envelopes.put(FULL)
        path = only(envelopes)
        with as_user(gives=home):
            assert envelopes.read(path) == FULL
        os.chown(path, 0, 0)
        with as_user():
            for read in (envelopes.read, envelopes.epoch_of):
                with pytest.raises(StoreDenied, match="belongs to root"):
                    read(path)


def test_folder_that_cannot_be_read_is_not_empty(envelopes: Envelopes, tmp_path: Path) -> None:
    (tmp_path / "envelopes").rmdir()
    with pytest.raises(StoreError):
        next(envelopes.paths())
