"""A large transfer over several links: each carries a part, and what one loses another brings."""

from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from node.documents.messages import ChunkFrame, Message, Offer
from node.documents.signed import Document
from node.domain.actors import NODE, Actor
from node.domain.connections import Route
from node.domain.manifest import ChunkEntry
from node.domain.transfers import NOTHING_CARRIED, SMALL_BYTES, Carried, State, Transfer
from node.errors import NodeError, PeerTimeout, PeerUnreachable
from node.exchange.transfer import arriving, patience
from node.exchange.transfer.arriving import Arriving
from node.exchange.transfer.priority_gate import PriorityGate
from node.exchange.transfer.receiver_machine import Missing
from node.exchange.transfer.sending import Sender
from tests.node.exchange.arriving_parts import MemoryLink, Receiving, link_pair, open_receiving
from tests.node.exchange.transfer.test_transfers import make_row
from tests.support.hostile import Forgery, HostilePeer, forge

CHUNKS = 41


class Store:
    """The sender's store and chunks, in memory."""

    def __init__(self, forgery: Forgery) -> None:
        self._forgery = forgery
        self.receipts = 0
        self.carried = 0

    async def sending_manifest(self, _: Transfer) -> Document:
        return self._forgery.manifest

    async def set_state(
        self, row: Transfer, _: State, __: str = "", *, actor: Actor = NODE
    ) -> Transfer:
        return row

    async def note_withdrawal_known(self, row: Transfer) -> Transfer:
        return row

    async def note_progress(
        self, row: Transfer, done: int, carried: int, seconds: float
    ) -> Transfer:
        self.carried += carried
        return row

    async def keep_receipt(
        self, row: Transfer, receipt: Document, carried: Carried = NOTHING_CARRIED
    ) -> Transfer:
        self.receipts += 1
        self.carried += carried.bytes
        return row

    def get_sealed(self, entry: ChunkEntry) -> bytes:
        return self._forgery.chunks[entry.chunk_id.digest]


class Line:
    """Links to a receiver, as a federation has them.

    Attributes:
        carried: How many frames of chunks each link has carried, by its number.
        breaks: After how many frames a link breaks, by its number.
    """

    def __init__(self, here: Receiving, forgery: Forgery, nursery: trio.Nursery) -> None:
        self._here, self._forgery, self._nursery = here, forgery, nursery
        self._opened = 0
        self.further = 3
        self.carried = Counter[int]()
        self.breaks: dict[int, int] = {}
        self.followed: list[bool] = []

    def count(self) -> int:
        return self.further

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Any]:
        number, self._opened = self._opened, self._opened + 1
        theirs, ours = link_pair(self._forgery.peer.facility, self._here.facility)
        self._nursery.start_soon(self._serve, ours)
        link = Counted(theirs, number, self)
        try:
            yield link
        finally:
            await theirs.end()

    async def _serve(self, ours: MemoryLink) -> None:
        offer = await ours.receive()
        assert isinstance(offer, Offer)
        with suppress(NodeError):
            self.followed.append(await self._here.receiver.receive(ours, offer))
        await ours.end()


class Counted:
    """One end of a link that breaks when it is to."""

    def __init__(self, link: MemoryLink, number: int, line: Line) -> None:
        self.peer, self.route, self.capabilities = link.peer, link.route, link.capabilities
        self._link, self._number, self._line = link, number, line

    async def send(self, message: Message) -> None:
        if isinstance(message, ChunkFrame):
            carried = self._line.carried
            if carried[self._number] == self._line.breaks.get(self._number):
                half = ChunkFrame(message.chunk_id, bytes(message.data)[: len(message.data) // 2])
                await self._link.send(half)
                raise PeerUnreachable("the link broke")
            carried[self._number] += 1
        await self._link.send(message)

    async def receive(self) -> Message | None:
        return await self._link.receive()


@asynccontextmanager
async def sending(
    folder: Path, *, bytes_total: int = 2**30
) -> AsyncGenerator[tuple[Any, Line, Store]]:
    """Yield what sends a package of 41 chunks once, its links, and the sender's store."""
    peer = HostilePeer(folder)
    with trio.fail_after(60):
        async with open_receiving(folder) as here, trio.open_nursery() as nursery:
            attached = [("text/plain", bytes([n]) * 3000, ()) for n in range(CHUNKS - 1)]
            forgery = forge(peer, here.identity, 1, attachments=attached)
            line, store = Line(here, forgery, nursery), Store(forgery)
            row = replace(
                make_row(),
                delivery=forgery.delivery.encode(),
                sealed_key=forgery.sealed_key,
                bytes_total=bytes_total,
            )

            async def send() -> State:
                async with line.open() as link:
                    sender = Sender(store, store)
                    await sender.send(link, row, PriorityGate(), Route.DIRECT, line)
                (kept,) = await here.store.find()
                return kept.state

            yield send, line, store


@pytest.fixture
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each link wants one chunk at a time: those here are small."""
    monkeypatch.setattr(Missing, "share_bytes", 1)


@pytest.mark.usefixtures("one_at_a_time")
async def test_every_link_carries_a_part_and_the_first_alone_the_receipt(tmp_path: Path) -> None:
    async with sending(tmp_path) as (send, line, store):
        assert await send() is State.DELIVERED
        assert line.carried.total() == CHUNKS
        assert sorted(line.carried) == [0, 1, 2, 3]
        assert store.receipts == 1
        assert store.carried == sum(map(len, line._forgery.chunks.values()))
        assert sorted(line.followed) == [False, False, False, True], "more may come on the first"


async def test_link_that_joins_what_has_not_begun_ends(tmp_path: Path) -> None:
    nothing: Any = SimpleNamespace(sealed_bytes=1)
    await Arriving(*[nothing] * 10).join(nothing)


@pytest.mark.usefixtures("one_at_a_time")
async def test_links_that_take_turns_to_bring_nothing_end_the_transfer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is patient for a minute; all of them together are, too."""
    monkeypatch.setattr(arriving, "_LOOK_SECONDS", 0.01)
    peer = HostilePeer(tmp_path)
    with trio.fail_after(60):
        async with open_receiving(tmp_path) as here, trio.open_nursery() as nursery:
            forgery = forge(peer, here.identity, 1)
            theirs, ours = link_pair(peer.facility, here.facility)
            failed = trio.Event()

            async def receive() -> None:
                offer = await ours.receive()
                assert isinstance(offer, Offer)
                with pytest.raises(PeerTimeout):
                    await here.receiver.receive(ours, offer)
                failed.set()

            nursery.start_soon(receive)
            monkeypatch.setattr(patience, "LEAST_SECONDS", 0.5)
            await theirs.send(Offer(forgery.delivery, forgery.sealed_key, forgery.manifest, 3))
            await failed.wait()


async def test_further_link_of_a_transfer_that_nobody_carries_ends(tmp_path: Path) -> None:
    peer = HostilePeer(tmp_path)
    with trio.fail_after(60):
        async with open_receiving(tmp_path) as here:
            forgery = forge(peer, here.identity, 1)
            _, ours = link_pair(peer.facility, here.facility)
            offer = Offer(forgery.delivery, forgery.sealed_key, is_further=True)
            assert not await here.receiver.receive(ours, offer)
            assert not await here.store.find()


@pytest.mark.usefixtures("one_at_a_time")
@pytest.mark.parametrize("after", [0, 1, 5])
async def test_what_a_broken_link_has_not_brought_comes_over_another(
    tmp_path: Path, after: int
) -> None:
    async with sending(tmp_path) as (send, line, store):
        line.breaks = {1: after, 3: after}
        assert await send() is State.DELIVERED
        assert line.carried.total() == CHUNKS
        assert store.receipts == 1


@pytest.mark.usefixtures("one_at_a_time")
async def test_transfer_ends_with_its_first_link_and_goes_on_where_it_stopped(
    tmp_path: Path,
) -> None:
    async with sending(tmp_path) as (send, line, store):
        line.breaks = {0: 4}
        with pytest.raises(PeerUnreachable):
            await send()
        assert store.receipts == 0
        assert 0 < line.carried.total() < CHUNKS
        line.breaks = {}
        await trio.testing.wait_all_tasks_blocked(0.1)  # the receiver has let go of it
        assert await send() is State.DELIVERED
        assert store.receipts == 1


@pytest.mark.usefixtures("one_at_a_time")
async def test_small_transfer_has_one_link(tmp_path: Path) -> None:
    async with sending(tmp_path, bytes_total=SMALL_BYTES) as (send, line, _):
        assert await send() is State.DELIVERED
        assert sorted(line.carried) == [0]
