"""One paired peer does its worst: memory, disk, rows, threads and places stay bounded."""

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from time import time

import pytest
import trio

from node.app.home import Home, unlock
from node.documents.arrivals import Arrival
from node.documents.delivery import open_delivery
from node.documents.identity import Identity
from node.documents.manifest import decode_body
from node.documents.messages import (
    Answer,
    AnswerKind,
    ChunkFrame,
    Collect,
    ManifestFrame,
    Offer,
    Problem,
    Want,
    Withdraw,
)
from node.documents.signed import Document
from node.domain.encoded import EncodedChunk
from node.domain.ids import TransferId
from node.domain.manifest import ChunkEntry
from node.errors import NodeError
from node.sql.database import open_database
from node.store.chunk_access import ChunkAccess
from node.store.schema import migrations
from tests.integration.attacks.exhaustion import again, peak_megabytes, promise
from tests.node.exchange.arriving_parts import link_pair, open_receiving
from tests.support.dicom_files import study_uid, write_study
from tests.support.hostile import Forgery, HostilePeer, forge
from tests.support.loop import run
from tests.support.nodes import Node

pytestmark = pytest.mark.integration

DAY = 86400.0


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = Node(tmp_path_factory.mktemp("node"), "victim", "Victim Hospital")
    node.make()
    node.set(quota_gib="1")
    node.start()
    yield node
    node.stop()


@pytest.fixture(scope="module")
def paired(node: Node, tmp_path_factory: pytest.TempPathFactory) -> tuple[HostilePeer, Identity]:
    peer = HostilePeer(tmp_path_factory.mktemp("hostile"))
    return peer, peer.pair_with(node)


async def offer(
    node: Node, peer: HostilePeer, identity: Identity, forgery: Forgery
) -> Answer | Problem:
    """Offer something and return the first word about it; the link ends then."""
    async with peer.channel(node, identity) as channel, peer.carry(channel, identity) as link:
        await link.send(Offer(forgery.delivery, forgery.sealed_key))
        answer = await link.receive()
        assert isinstance(answer, Answer | Problem)
        return answer


@pytest.mark.timeout(400)
def test_large_manifests_of_one_peer_are_read_one_after_the_other(
    node: Node, paired: tuple[HostilePeer, Identity]
) -> None:
    """Three links with 59 MiB each cost 1.1 GB; here each has 35 MiB."""
    peer, identity = paired
    large = [promise(peer, identity, chunks=100_000) for _ in range(3)]
    peak_megabytes(node)
    before = peak_megabytes(node)

    async def send(forgery: Forgery, done: trio.Semaphore) -> None:
        async with peer.channel(node, identity) as channel, peer.carry(channel, identity) as link:
            await link.send(Offer(forgery.delivery, forgery.sealed_key))
            answer = await link.receive()
            if not isinstance(answer, Answer) or not answer.is_manifest_needed:
                done.release()
                return
            encoded = forgery.manifest.encode()
            for i in range(0, len(encoded), 2**20):
                await link.send(ManifestFrame(encoded[i : i + 2**20]))
            await link.receive()  # wanted, or refused
            done.release()
            await trio.sleep_forever()

    async def work() -> None:
        done = trio.Semaphore(0)
        with trio.fail_after(300):
            async with trio.open_nursery() as nursery:
                for forgery in large:
                    nursery.start_soon(send, forgery, done)
                for _ in range(3):
                    await done.acquire()
                nursery.cancel_scope.cancel()

    run(work)
    assert peak_megabytes(node) - before < 400


def test_offers_that_are_withdrawn_leave_only_their_names(
    node: Node, paired: tuple[HostilePeer, Identity]
) -> None:
    peer, identity = paired
    note = "\N{CJK UNIFIED IDEOGRAPH-4E00}" * 2000
    forgery = promise(peer, identity, chunks=1, note=note)
    withdrawn = [again(forgery, identity) for _ in range(20)]

    async def withdraw(each: Forgery) -> None:
        # Chunks are wanted that never come; then it is taken back on another link.
        async with peer.channel(node, identity) as channel:
            async with peer.carry(channel, identity) as link:
                await link.send(Offer(each.delivery, each.sealed_key))
                await link.receive()
            async with peer.carry(channel, identity) as link:
                await link.send(Withdraw(open_delivery(each.delivery).transfer_id))
                await link.receive()

    async def work() -> None:
        for each in withdrawn:
            await withdraw(each)
        # It is remembered all the same: shown again, it is not news.
        answer = await offer(node, peer, identity, withdrawn[0])
        assert isinstance(answer, Answer)
        assert answer.kind is AnswerKind.DECLINED

    run(work)
    node.stop()
    key = unlock(Home(node.home), None).root_key.database_key()
    database = open_database(node.home / "metadata.db", key, migrations)
    sql = (
        "SELECT COUNT(*), SUM(LENGTH(delivery) + LENGTH(sealed_key) + LENGTH(note))"
        " FROM transfers WHERE state = 'cancelled'"
    )
    count, kept = database.read_sync(lambda db: tuple(db.execute(sql).fetchone()))
    database.close()
    node.start()
    assert (count, kept) == (20, 0)


def test_delivery_of_400_days_stands_for_30(
    node: Node, paired: tuple[HostilePeer, Identity]
) -> None:
    peer, identity = paired
    fresh = promise(peer, identity, chunks=1, created=time() - 29 * DAY, stands=399 * DAY)
    old = promise(peer, identity, chunks=1, created=time() - 31 * DAY, stands=399 * DAY)
    assert isinstance(run(lambda: offer(node, peer, identity, fresh)), Answer)
    refused = run(lambda: offer(node, peer, identity, old))
    assert isinstance(refused, Problem)
    assert (refused.code, "expired" in refused.message) == ("bad-delivery", True)


def test_two_offers_at_once_do_not_get_the_same_room(
    node: Node, paired: tuple[HostilePeer, Identity]
) -> None:
    """Each fits the quota of one GiB, and not both; neither has sent its manifest yet."""
    peer, identity = paired
    large = [
        promise(peer, identity, chunks=150, chunk_bytes=4 * 2**20, plaintext_bytes=4 * 2**20)
        for _ in range(2)
    ]
    kinds: list[AnswerKind] = []

    async def hold(forgery: Forgery, answered: trio.Semaphore) -> None:
        async with peer.channel(node, identity) as channel, peer.carry(channel, identity) as link:
            await link.send(Offer(forgery.delivery, forgery.sealed_key))
            answer = await link.receive()
            assert isinstance(answer, Answer)
            kinds.append(answer.kind)
            answered.release()
            await trio.sleep_forever()

    async def work() -> None:
        answered = trio.Semaphore(0)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for forgery in large:
                    nursery.start_soon(hold, forgery, answered)
                for _ in large:
                    await answered.acquire()
                nursery.cancel_scope.cancel()

    run(work)
    assert Counter(kinds) == {AnswerKind.ACCEPTED: 1, AnswerKind.LATER: 1}


def test_chunk_is_not_sent_again_for_ever(
    node: Node, paired: tuple[HostilePeer, Identity], tmp_path: Path
) -> None:
    peer, identity = paired
    node.run("import", str(write_study(tmp_path / "in", 7000, 2)))
    sent = node.json("send", study_uid(7000), "hostile")
    waiting = TransferId.parse(sent["transfers"][0]["transfer_id"])
    came = 0

    async def work() -> Problem:
        nonlocal came
        async with peer.channel(node, identity) as channel, peer.carry(channel, identity) as link:
            await link.send(Collect(waiting))
            assert isinstance(await link.receive(), Offer)
            await link.send(Answer(AnswerKind.ACCEPTED, is_manifest_needed=True))
            frame = await link.receive()
            assert isinstance(frame, ManifestFrame)
            chunk = decode_body(Document.decode(frame.data).body).chunks[0]
            while came < 50:
                await link.send(Want((chunk.chunk_id,)))
                message = await link.receive()
                if isinstance(message, Problem):
                    return message
                assert isinstance(message, ChunkFrame)
                came += 1
        raise AssertionError("the same chunk was sent 50 times")

    problem = run(work)
    assert (problem.code, came) == ("not-offered", 3)


def test_failures_of_one_peer_do_not_fill_the_log(
    node: Node, paired: tuple[HostilePeer, Identity]
) -> None:
    peer, identity = paired
    old = promise(peer, identity, chunks=1, created=time() - 500 * DAY)
    before = node.log.read_text().count("transfer ended early")

    async def work() -> None:
        async with peer.channel(node, identity) as channel:
            for _ in range(130):
                async with peer.carry(channel, identity) as link:
                    await link.send(Offer(old.delivery, old.sealed_key))
                    try:
                        await link.receive()
                    except NodeError:
                        continue

    run(work)
    assert node.log.read_text().count("transfer ended early") - before <= 122  # two minutes' worth


class StuckCarrier(ChunkAccess):
    """Keeps chunks only when the test says so."""

    begun, may_go = threading.Semaphore(0), threading.Event()

    def put_sealed(self, arrival: Arrival, entry: ChunkEntry, sealed: bytes) -> EncodedChunk:
        self.begun.release()
        assert self.may_go.wait(60)
        return super().put_sealed(arrival, entry, sealed)


async def test_chunks_of_one_peer_do_not_take_all_threads(tmp_path: Path) -> None:
    """Trio has 40: with 25 links of two chunks each nothing else ran on any of them."""
    peer = HostilePeer(tmp_path)
    StuckCarrier.may_go.clear()
    with trio.fail_after(90):
        async with open_receiving(tmp_path, StuckCarrier) as here:

            async def receive(n: int, received: trio.Semaphore) -> None:
                forgery = forge(peer, here.identity, n + 1, split_at=400)
                theirs, ours = link_pair(peer.facility, here.facility)

                async def take() -> None:
                    message = await ours.receive()
                    assert isinstance(message, Offer)
                    await here.receiver.receive(ours, message)
                    received.release()

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(take)
                    nursery.start_soon(forgery.send, theirs)  # type: ignore[arg-type]

            received = trio.Semaphore(0)
            async with trio.open_nursery() as nursery:
                for n in range(25):
                    nursery.start_soon(receive, n, received)
                free = trio.CapacityLimiter(2)
                for _ in range(4):
                    await trio.to_thread.run_sync(StuckCarrier.begun.acquire, limiter=free)
                # Until all that can be at work is at work.
                while await trio.to_thread.run_sync(
                    lambda: StuckCarrier.begun.acquire(timeout=2), limiter=free
                ):
                    pass
                with trio.move_on_after(5) as own:
                    await trio.to_thread.run_sync(int, abandon_on_cancel=True)
                StuckCarrier.may_go.set()
                assert not own.cancelled_caught, "no thread is left for anybody else"
                nursery.cancel_scope.cancel()
