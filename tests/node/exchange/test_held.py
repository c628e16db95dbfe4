"""Held offers: a person's decision is told, and nobody is asked every ten seconds."""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.domain.ids import FacilityId, PackageId, TransferId
from node.domain.transfers import Direction, Priority, State, Transfer
from node.errors import StoreError
from node.exchange.hub import Hub
from node.exchange.transfers import Transfers, Waiting

PEER = FacilityId(bytes([7]) * 32)
HOUR = 3600.0


def make_row(**changes: Any) -> Transfer:
    row = Transfer(
        id=1,
        transfer_id=TransferId(bytes(16)),
        direction=Direction.SEND,
        peer=PEER,
        origin=PEER,
        package_id=PackageId(bytes(32)),
        study_uid="1.2",
        priority=Priority.ROUTINE,
        state=State.HELD,
        reason="",
        accepted=False,
        delivery=b"",
        delivery_digest=b"",
        sealed_key=b"",
        receipt=None,
        manifest_digest=None,
        bytes_total=1,
        bytes_done=0,
        bytes_carried=0,
        instances=1,
        plaintext_bytes=1,
        recipient="",
        note="",
        created_time=0.0,
        updated_time=0.0,
        expires_time=time.time() + 10**9,
        received_time=0.0,
        untold=False,
        route="",
        carried_seconds=0.0,
    )
    return replace(row, **changes)


class Book:
    """One transfer, in memory."""

    def __init__(self, row: Transfer) -> None:
        self.row = row

    async def waiting_for(self, _: FacilityId) -> Sequence[Transfer]:
        return [] if self.row.state.is_final else [self.row]

    async def reload(self, _: Transfer) -> Transfer:
        return self.row

    async def set_route(self, row: Transfer, _: str) -> Transfer:
        return row

    async def set_state(self, row: Transfer, state: State, *_: object, **__: object) -> Transfer:
        self.row = replace(row, state=state)
        return self.row


class HeldSender:
    """Offers, and hears each time that a person is to decide."""

    def __init__(self) -> None:
        self.offers: list[float] = []
        self.offered = trio.Event()

    async def send(self, *_: object) -> None:
        self.offers.append(trio.current_time())
        self.offered.set()
        self.offered = trio.Event()
        await trio.lowlevel.checkpoint()


class OneLink:
    """Links that lead to nobody."""

    peer, route = PEER, "direct"

    def is_connected(self, _: FacilityId) -> bool:
        return False

    @asynccontextmanager
    async def carry(self, _: FacilityId) -> AsyncGenerator["OneLink"]:
        yield self


def make_transfers(sender: HeldSender) -> Transfers:
    return Transfers(
        signer=None,  # type: ignore[arg-type]
        book=Book(make_row()),  # type: ignore[arg-type]
        sender=sender,  # type: ignore[arg-type]
        receiver=None,  # type: ignore[arg-type]
        links=OneLink(),  # type: ignore[arg-type]
        offer_seconds=60.0,
    )


async def test_held_offer_is_offered_again_after_growing_pauses(autojump_clock: MockClock) -> None:
    sender = HeldSender()
    with trio.move_on_after(HOUR):
        await make_transfers(sender).run_peer(PEER)
    assert 2 <= len(sender.offers) < 20, "an hour of holding is no reason to ask 360 times"


async def test_transfer_goes_on_after_the_store_failed(autojump_clock: MockClock) -> None:
    class FailingBook(Book):
        failures = 1

        async def reload(self, row: Transfer) -> Transfer:
            if self.failures:
                self.failures -= 1
                raise StoreError("the disk was full")
            return await super().reload(row)

    sender = HeldSender()
    transfers = make_transfers(sender)
    book: Any = FailingBook(make_row())
    transfers._book = book
    with trio.move_on_after(HOUR):
        await transfers.run_peer(PEER)
    assert sender.offers, "nothing else changed, and it waited for ever"
    assert sender.offers[0] < 180


async def test_decision_that_is_told_is_followed_at_once(autojump_clock: MockClock) -> None:
    sender = HeldSender()
    transfers = make_transfers(sender)
    with trio.move_on_after(HOUR):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transfers.run_peer, PEER)
            for _ in range(7):
                await sender.offered.wait()
            told = trio.current_time() + 5
            await trio.sleep_until(told)
            transfers.decided(FacilityId(bytes(32)), TransferId(bytes(16)))  # another's word
            transfers.decided(PEER, TransferId(bytes(16)))
            await sender.offered.wait()
            assert sender.offers[-1] - told == pytest.approx(1)
            nursery.cancel_scope.cancel()
    assert len(sender.offers) == 8


async def test_collector_is_told_of_a_held_offer_after_growing_pauses(
    autojump_clock: MockClock,
) -> None:
    told: list[float] = []

    async def tell_one(_: TransferId) -> None:
        told.append(trio.current_time())
        await trio.lowlevel.checkpoint()

    book: Any = Book(make_row())
    with trio.move_on_after(HOUR):
        await Waiting(book, Hub(), PEER, lambda _: False).run(tell_one)
    assert 2 <= len(told) < 20
    told.clear()
    book = Book(make_row(state=State.PENDING))
    with trio.move_on_after(HOUR):
        await Waiting(book, Hub(), PEER, lambda _: False).run(tell_one)
    assert len(told) > 300, "what waits for no person is told again soon"
