"""Offers as the store keeps them: bounded, forgotten when they can no longer come again."""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from node.crypto.keys import DataKey
from node.crypto.signing import SigningKey
from node.documents.delivery import Delivery, sign_delivery
from node.documents.signed import Document, DocumentSigner, certify_node
from node.domain.ids import FacilityId, TransferId
from node.domain.packages import PackageState
from node.domain.transfers import Priority, State, Transfer
from node.errors import BadDelivery, BadManifest, Conflict, PeerBusy, PeerRefused
from node.sql.database import Db
from node.store import arrivals, package_rows
from node.store.arrivals import ArrivalStore
from node.store.audit import AuditStore
from node.store.context import StoreContext
from node.store.removal import remove_packages
from node.store.transfers import TransferStore
from tests.node.store.test_import_resumes import make_store
from tests.support.actors import actor

ROOM = (2**40,)


def make_signer() -> DocumentSigner:
    facility, node = SigningKey.new(), SigningKey.new()
    return DocumentSigner(node, certify_node(facility, node, time.time()))


def make_delivery(
    sender: DocumentSigner, receiver: FacilityId, *, expires: float = 3600.0
) -> tuple[Delivery, Document]:
    now = time.time()
    delivery = Delivery(
        transfer_id=TransferId.new(),
        package_id=DataKey.new().package_id,
        origin=sender.facility_id,
        manifest_digest=bytes(32),
        manifest_bytes=1,
        sender=sender.facility_id,
        receiver=receiver,
        sealed_key_digest=bytes(32),
        created_time=now,
        expires_time=now + expires,
        priority=Priority.ROUTINE,
        recipient="",
        note="",
        instances=1,
        sealed_bytes=1,
    )
    return delivery, sign_delivery(delivery, sender)


@pytest.fixture
def context(tmp_path: Path) -> Iterator[StoreContext]:
    context = make_store(tmp_path)
    yield context
    context.close()


async def test_one_peer_can_leave_only_so_many_offers(
    context: StoreContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "MAX_OPEN_OFFERS", 3)
    transfers = TransferStore(context)
    store = ArrivalStore(context, transfers)
    sender, other = make_signer(), make_signer()
    kept = []
    for _ in range(3):
        delivery, document = make_delivery(sender, context.facility)
        kept.append(await store.keep_offer(delivery, document, b"", is_held=True))
    delivery, document = make_delivery(sender, context.facility)
    with pytest.raises(PeerBusy):
        await store.keep_offer(delivery, document, b"", is_held=True)
    # What was kept is found again, others are not kept out, and an end makes room.
    theirs, from_other = make_delivery(other, context.facility)
    await store.keep_offer(theirs, from_other, b"", is_held=True)
    await transfers.set_state(kept[0], State.DECLINED)
    await store.keep_offer(delivery, document, b"", is_held=True)
    again = await store.keep_offer(delivery, document, b"", is_held=True)
    assert again.transfer_id == delivery.transfer_id


async def test_transfer_id_stands_for_one_delivery(context: StoreContext) -> None:
    store = ArrivalStore(context, TransferStore(context))
    sender = make_signer()
    delivery, document = make_delivery(sender, context.facility)
    await store.keep_offer(delivery, document, b"", is_held=True)
    second = replace(delivery, note="other")
    with pytest.raises(BadDelivery):
        await store.keep_offer(second, sign_delivery(second, sender), b"", is_held=True)


async def test_only_offers_that_cannot_come_again_are_forgotten(context: StoreContext) -> None:
    transfers = TransferStore(context)
    store = ArrivalStore(context, transfers)
    sender = make_signer()
    rows = {}
    for name, expires in (("ended", 1.0), ("open", 1.0), ("ended, stands", 3600.0)):
        delivery, document = make_delivery(sender, context.facility, expires=expires)
        rows[name] = await store.keep_offer(delivery, document, b"", is_held=True)
        if name != "open":
            await transfers.set_state(rows[name], State.DECLINED)
    assert await transfers.forget_expired(time.time() + 60) == 1
    left = {row.transfer_id for row in await transfers.find()}
    assert left == {rows["open"].transfer_id, rows["ended, stands"].transfer_id}


async def test_offers_that_stand_no_longer_count_until_they_are_ended(
    context: StoreContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a peer whose offers stand for a second would leave any number."""
    monkeypatch.setattr(arrivals, "MAX_OPEN_OFFERS", 3)
    store = ArrivalStore(context, TransferStore(context))
    sender = make_signer()
    for _ in range(3):
        delivery, document = make_delivery(sender, context.facility, expires=-1.0)
        await store.keep_offer(delivery, document, b"", is_held=True)
    delivery, document = make_delivery(sender, context.facility)
    with pytest.raises(PeerBusy):
        await store.keep_offer(delivery, document, b"", is_held=True)


async def test_offers_that_came_to_nothing_and_their_bytes_are_bounded(
    context: StoreContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfers = TransferStore(context)
    store = ArrivalStore(context, transfers)
    sender = make_signer()

    async def keep() -> Transfer:
        delivery, document = make_delivery(sender, context.facility)
        return await store.keep_offer(delivery, document, b"", is_held=True)

    monkeypatch.setattr(arrivals, "MAX_ENDED_OFFERS", 3, raising=False)
    for _ in range(3):
        await transfers.set_state(await keep(), State.CANCELLED)
    with pytest.raises(PeerBusy):
        await keep()
    monkeypatch.setattr(arrivals, "MAX_ENDED_OFFERS", 10, raising=False)
    await keep()
    monkeypatch.setattr(arrivals, "MAX_OFFER_BYTES", 1000, raising=False)
    with pytest.raises(PeerBusy):
        await keep()


async def test_second_manifest_of_a_package_is_one_alarm_until_it_is_seen(
    context: StoreContext,
) -> None:
    """However often the peer shows it, and of however many packages."""
    store, audit = ArrivalStore(context, TransferStore(context)), AuditStore(context)
    sender = make_signer()
    manifest: Any = SimpleNamespace(
        needs=(), study_instance_uid="1.2", plaintext_bytes=1, sealed_bytes=1, chunks=()
    )
    for _ in range(2):
        delivery, document = make_delivery(sender, context.facility)
        row = await store.keep_offer(delivery, document, b"", is_held=False)
        await context.database.write(partial(add_other, row))
        for _ in range(3):
            with pytest.raises(BadManifest):
                await store.begin_arrival(row, DataKey.new(), manifest, document, *ROOM)
    [alarm] = await audit.open_alarms()
    assert alarm.kind == "alarm.equivocation"
    await audit.acknowledge(alarm.sequence, actor("admin"))
    with pytest.raises(BadManifest):
        await store.begin_arrival(row, DataKey.new(), manifest, document, *ROOM)
    assert len(await audit.open_alarms()) == 1


def add_other(row: Transfer, db: Db) -> None:
    """Keep another manifest for a transfer's package."""
    package = package_rows.add_package(
        db,
        package_id=row.package_id,
        origin=row.origin,
        study_uid="1.2",
        state=PackageState.CLOSED,
        epoch=1,
        wrapped_key=b"",
    )
    db.execute(
        "UPDATE packages SET manifest = x'00', manifest_digest = x'01' WHERE id = ?", (package,)
    )


async def test_open_offers_of_one_package_are_bounded(context: StoreContext) -> None:
    """Else a peer offers it often before it is here, and gets a receipt for each."""
    store = ArrivalStore(context, TransferStore(context))
    sender, other = make_signer(), make_signer()
    first, _ = make_delivery(sender, context.facility)

    async def offer(signer: DocumentSigner) -> None:
        delivery = replace(first, transfer_id=TransferId.new(), sender=signer.facility_id)
        await store.keep_offer(delivery, sign_delivery(delivery, signer), b"", is_held=True)

    for _ in range(8):
        await offer(sender)
    with pytest.raises(PeerRefused):
        await offer(sender)
    await offer(other)


async def test_what_another_peer_has_begun_is_not_discarded(context: StoreContext) -> None:
    """One peer's transfer ends, another's begins the same package before it is removed."""
    transfers = TransferStore(context)
    store = ArrivalStore(context, transfers)
    key, sender, other = DataKey.new(), make_signer(), make_signer()
    manifest: Any = SimpleNamespace(
        needs=(), study_instance_uid="1.2", plaintext_bytes=1, sealed_bytes=1, chunks=()
    )
    first = replace(make_delivery(sender, context.facility)[0], package_id=key.package_id)
    document = sign_delivery(first, sender)

    async def keep(delivery: Delivery, signer: DocumentSigner) -> Transfer:
        signed = sign_delivery(delivery, signer)
        return await store.keep_offer(delivery, signed, b"", is_held=False)

    ended = await keep(first, sender)
    await store.begin_arrival(ended, key, manifest, document, *ROOM)
    await transfers.set_state(ended, State.CANCELLED)
    found = await store.discard_arrival(ended)
    second = replace(first, transfer_id=TransferId.new(), sender=other.facility_id)
    row = await keep(second, other)
    begun = False
    with suppress(Conflict):  # not final: it comes again
        await store.begin_arrival(row, key, manifest, document, *ROOM)
        begun = True
    remove_packages(context, found)
    if not begun:
        await store.begin_arrival(row, key, manifest, document, *ROOM)
    assert (await store.arrival(row, document.digest())).package.state == "arriving"
