"""Who only keeps a transfer's line alive ends it, and others come."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.documents.delivery import open_delivery, sign_delivery
from node.documents.messages import Answer, AnswerKind, ManifestFrame, Offer, ReceiptMessage, Want
from node.domain.connections import Route
from node.errors import NodeError, PeerTimeout
from node.exchange.transfer import patience, receiving
from node.exchange.transfer.priority_gate import PriorityGate
from node.exchange.transfer.sending import Sender
from node.store import package_rows
from tests.node.exchange.arriving_parts import MemoryLink, Receiving, link_pair, open_receiving
from tests.node.exchange.transfer.test_sending import make_sending
from tests.support.hostile import Forgery, HostilePeer, forge


def offered(nursery: trio.Nursery, here: Receiving, forgery: Forgery) -> MemoryLink:
    """Return the sender's end of a link over which a receiver gets what the sender offers."""
    theirs, ours = link_pair(forgery.peer.facility, here.facility)

    async def receive() -> None:
        offer = await ours.receive()
        assert isinstance(offer, Offer)
        with suppress(NodeError):
            await here.receiver.receive(ours, offer)
        await ours.end()

    nursery.start_soon(receive)
    return theirs


async def accepted(link: MemoryLink, forgery: Forgery) -> None:
    """Have an offer accepted, and send nothing more."""
    assert await kind_of(link, forgery) is AnswerKind.ACCEPTED


async def stall(_: MemoryLink, __: Forgery) -> None:
    await trio.lowlevel.checkpoint()


async def stall_before_chunks(link: MemoryLink, forgery: Forgery) -> None:
    await link.send(ManifestFrame(forgery.manifest.encode()))
    assert isinstance(await link.receive(), Want)


async def trickle(link: MemoryLink, forgery: Forgery) -> None:
    for byte in forgery.manifest.encode():
        await link.send(ManifestFrame(bytes([byte])))
        await trio.sleep(0.2)


@pytest.mark.parametrize("behave", [stall, stall_before_chunks, trickle])
async def test_room_of_a_peer_that_stalls_goes_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behave: Callable[..., Any]
) -> None:
    monkeypatch.setattr(patience, "LEAST_SECONDS", 1.0)
    a, b = HostilePeer(tmp_path, "a"), HostilePeer(tmp_path, "b")
    with trio.fail_after(20):
        async with open_receiving(tmp_path, quota_bytes=1) as here, trio.open_nursery() as nursery:
            first, other = forge(a, here.identity, 1), forge(b, here.identity, 2)
            here.receiver._room._quota_bytes = 3 * _needed(first) // 2
            here.receiver._room._used_bytes = lambda: here.context.database.read_sync(
                package_rows.used_bytes  # the database itself grows meanwhile
            )
            link = offered(nursery, here, first)
            await accepted(link, first)
            nursery.start_soon(behave, link, first)
            said = None
            while not isinstance(said, ReceiptMessage):
                said = await other.send(offered(nursery, here, other))  # type: ignore[arg-type]
                await trio.sleep(0.1)
            while open_delivery(first.delivery).package_id in {p for _, p in here.receiver._active}:
                await trio.sleep(0.1)
            nursery.cancel_scope.cancel()


async def test_package_goes_to_who_waited_for_it_before_it_goes_to_who_stalled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "LEAST_SECONDS", 1.0)
    a, b = HostilePeer(tmp_path, "a"), HostilePeer(tmp_path, "b")
    with trio.fail_after(20):
        async with open_receiving(tmp_path) as here, trio.open_nursery() as nursery:
            theirs = forge(b, here.identity, 1)
            delivery = replace(open_delivery(theirs.delivery), sender=a.facility)
            again = replace(theirs, peer=a, delivery=sign_delivery(delivery, a.keys.signer))
            stalling = offered(nursery, here, again)
            await accepted(stalling, again)
            assert await kind_of(offered(nursery, here, theirs), theirs) is AnswerKind.LATER
            assert (await stalling.receive()) is not None  # told why it ended
            assert await kind_of(offered(nursery, here, again), again) is AnswerKind.LATER
            said = await theirs.send(offered(nursery, here, theirs))  # type: ignore[arg-type]
            assert isinstance(said, ReceiptMessage)
            nursery.cancel_scope.cancel()


async def kind_of(link: MemoryLink, forgery: Forgery) -> AnswerKind:
    """Offer; return the answer."""
    await link.send(Offer(forgery.delivery, forgery.sealed_key))
    answer = await link.receive()
    assert isinstance(answer, Answer)
    return answer.kind


def _needed(forgery: Forgery) -> int:
    delivery = open_delivery(forgery.delivery)
    return delivery.sealed_bytes + 4 * delivery.manifest_bytes + receiving._DOCUMENTS_BYTES


async def send(patient: patience.Patience, frames: int, seconds: float) -> None:
    """Send frames of 2 MiB, each after a time."""
    for _ in range(frames):
        with patient.waiting():
            await trio.sleep(seconds)
        patient.earn(2 * 2**20)


async def test_who_sends_as_fast_as_it_must_is_waited_for(autojump_clock: MockClock) -> None:
    patient = patience.for_bytes(2**30)
    await send(patient, 1000, 120)
    with pytest.raises(PeerTimeout):
        await send(patient, 1000, 140)


async def test_receiver_that_only_beats_ends_the_sending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it never answers, or accepts and wants nothing."""
    monkeypatch.setattr(patience, "ANSWER_SECONDS", 1.0)
    monkeypatch.setattr("node.exchange.transfer.sending._LOOK_SECONDS", 0.2)
    peer = HostilePeer(tmp_path)
    for has_accepted in (False, True):
        row, store = make_sending(peer)
        theirs, ours = link_pair(peer.facility, peer.facility)
        if has_accepted:
            await theirs.send(Answer(AnswerKind.ACCEPTED, is_manifest_needed=False))
        with trio.fail_after(20), pytest.raises(PeerTimeout):
            await Sender(store, store).send(ours, row, PriorityGate(), Route.DIRECT)
