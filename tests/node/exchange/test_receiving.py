"""Receiving over a real store: what ends leaves nothing, what is promised is reserved."""

import threading
from collections.abc import Sequence
from pathlib import Path

import trio

from node.documents.arrivals import Arrival
from node.documents.messages import Offer
from node.domain.manifest import ChunkEntry
from node.domain.transfers import State
from node.store.carrying import ChunkCarrier
from tests.integration.hostile import HostilePeer, forge
from tests.node.exchange.arriving_parts import link_pair, open_receiving


class SlowCarrier(ChunkCarrier):
    """Keeps a chunk only when the test says so."""

    begun, may_go = threading.Event(), threading.Event()

    def put_sealed(self, arrival: Arrival, entry: ChunkEntry, sealed: bytes) -> bytes:
        self.begun.set()
        assert self.may_go.wait(30)
        return super().put_sealed(arrival, entry, sealed)


async def test_cancelled_arrival_is_removed_with_what_was_being_written(tmp_path: Path) -> None:
    SlowCarrier.begun.clear()
    SlowCarrier.may_go.clear()
    peer = HostilePeer(tmp_path)
    with trio.fail_after(60):
        async with open_receiving(tmp_path, SlowCarrier) as here:
            forgery = forge(peer, here.identity, 1)
            theirs, ours = link_pair(peer.facility, here.facility)

            async def receive() -> None:
                offer = await ours.receive()
                assert isinstance(offer, Offer)
                await here.receiver.receive(ours, offer)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                nursery.start_soon(forgery.send, theirs)  # type: ignore[arg-type]
                await trio.to_thread.run_sync(SlowCarrier.begun.wait, 30)
                (row,) = await here.store.find()
                ended = trio.Event()

                async def cancel() -> None:
                    await here.transfers.cancel(str(row.transfer_id), "test")
                    ended.set()

                nursery.start_soon(cancel)
                with trio.move_on_after(1):
                    await ended.wait()
                SlowCarrier.may_go.set()
                await ended.wait()
            (row,) = await here.store.find()
            assert row.state is State.DECLINED
            assert not _files(tmp_path / "home"), "a chunk was written after the removal"


def _files(home: Path) -> Sequence[Path]:
    return list((home / "chunks").glob("??/*"))
