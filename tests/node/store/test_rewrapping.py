"""All data keys move to the newest epoch; cut off anywhere, each row and envelope opens still."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from node.chunks.testing import MemoryChunkStorage
from node.crypto.keys import DataKey, unwrap
from node.domain.packages import Package, PackageState
from node.errors import BadDataKey, StoreError
from node.sql.database import Db
from node.store import package_rows, rewrapping
from node.store.context import StoreContext
from node.store.envelopes import Envelope, Envelopes
from node.store.rewrapping import epochs_in_use, rewrap
from tests.support.stores import new_secrets, new_store

SECRETS, SIGNER = new_secrets(epochs=2)


@pytest.fixture
def context(tmp_path: Path) -> Iterator[StoreContext]:
    """Yield a store with two epochs; packages that `add` makes are of the older one."""
    context = new_store(tmp_path, MemoryChunkStorage())
    envelopes = Envelopes(tmp_path / "envelopes", SECRETS)
    yield replace(context, secrets=SECRETS, signer=SIGNER, envelopes=envelopes)
    context.close()


def add(context: StoreContext, state: PackageState = PackageState.CLOSED, epoch: int = 1) -> bytes:
    """Keep a package, with its envelope where it is closed; return its data key."""
    key = DataKey.new()
    wrapped = key.wrap(SECRETS.epoch_keys(epoch), epoch, context.facility)

    def work(db: Db) -> None:
        package_rows.add_package(
            db,
            package_id=key.package_id,
            origin=context.facility,
            study_uid="1.2",
            state=state,
            epoch=epoch,
            wrapped_key=wrapped,
        )

    context.database.write_sync(work)
    if state is PackageState.CLOSED:
        envelope = Envelope(key.package_id, context.facility, epoch, wrapped, b"m", b"d", b"f")
        context.envelopes.put(envelope)
    return key._key


def rows(context: StoreContext) -> list[Package]:
    return context.database.read_sync(lambda db: package_rows.find_packages(db, "1", ()))


def envelopes(context: StoreContext) -> list[Envelope]:
    return [context.envelopes.read(path) for path in context.envelopes.paths()]


def opened(context: StoreContext) -> list[bytes]:
    """Return the data keys that rows give, and after them those that envelopes give."""
    found = [context.data_key(package)._key for package in rows(context)]
    for envelope in envelopes(context):
        keys = SECRETS.epoch_keys(envelope.epoch)
        name, wrapped = envelope.package_id, envelope.wrapped_key
        found.append(unwrap(keys, envelope.epoch, envelope.origin, name, wrapped)._key)
    return found


def test_rows_and_envelopes_name_the_newest_epoch_and_open_to_the_same_keys(
    context: StoreContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewrapping, "_BATCH", 2)
    keys = [add(context, state) for state in PackageState]
    new = add(context, epoch=2)
    assert epochs_in_use(context) == {1, 2}
    assert rewrap(context) == len(keys)
    assert epochs_in_use(context) == {2}
    closed = keys[list(PackageState).index(PackageState.CLOSED)]
    assert sorted(opened(context)) == sorted([*keys, new, closed, new])
    assert {(e.manifest, e.delivery, e.findings) for e in envelopes(context)} == {
        (b"m", b"d", b"f")
    }
    assert rewrap(context) == 0


@pytest.mark.parametrize("left", ["rows", "envelopes"])
def test_what_a_kill_left_opens_and_goes_with_the_next_run(
    context: StoreContext, left: str
) -> None:
    key = add(context)
    package, (envelope,) = rows(context)[0], envelopes(context)
    rewrap(context)
    if left == "rows":
        columns = (package.epoch, package.wrapped_key)
        context.database.write_sync(
            lambda db: db.execute("UPDATE packages SET epoch = ?, wrapped_key = ?", columns)
        )
    else:
        context.envelopes.put(envelope)
    assert epochs_in_use(context) == {1, 2}
    assert opened(context) == [key, key]
    assert rewrap(context) == (left == "rows")
    assert epochs_in_use(context) == {2}
    assert opened(context) == [key, key]


def test_envelope_that_does_not_open_is_told_and_no_row_is_moved(context: StoreContext) -> None:
    add(context)
    (path,) = context.envelopes.paths()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StoreError, match=path.name):
        rewrap(context)
    assert [package.epoch for package in rows(context)] == [1]
    path.write_bytes(b"x")
    with pytest.raises(StoreError, match=path.name):
        epochs_in_use(context)


def test_row_that_does_not_open_is_told_and_nothing_of_what_is_left_is_changed(
    context: StoreContext,
) -> None:
    for _ in range(2):
        add(context, PackageState.OPEN)
    context.database.write_sync(
        lambda db: db.execute("UPDATE packages SET wrapped_key = ? WHERE id = 2", (bytes(72),))
    )
    before = rows(context)
    with pytest.raises(BadDataKey):
        rewrap(context)
    assert rows(context) == before
