"""A paired peer that shows and tells what it should not of audit logs."""

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from emix.exchange.v1 import exchange_pb2 as pb

from node.documents.audit_head import open_head, read_head_file, sign_head
from node.domain.audit import DIGEST_BYTES
from node.domain.heads import MAX_LINKS, MOST_EVIDENCE
from node.errors import NodeError, PeerBusy
from node.rpc.calling import Channel
from tests.integration.attacks import audit_log
from tests.support.hostile import HELLO, HostilePeer, hello
from tests.support.loop import run
from tests.support.nodes import Node

pytestmark = pytest.mark.integration


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path, "victim", "Victim Hospital")
    node.make()
    node.start()
    yield node
    assert node.stop() == 0


def now() -> int:
    return int(time.time() * 1000)


def own_head(peer: HostilePeer, sequence: int, digest: bytes, moment: int | None = None) -> bytes:
    moment = now() if moment is None else moment
    return sign_head(sequence, digest, moment, peer.keys.signer).encode()


async def say(channel: Channel, given: pb.GivenHead, *kept: pb.KeptHead) -> pb.HelloResponse:
    request = hello()
    request.audit_head.CopyFrom(given)
    request.kept_heads.extend(kept)
    return await channel.unary(HELLO, request, timeout=10)


def kept_rows(node: Node) -> int:
    """Return how many heads of others a node that does not run has kept."""
    with audit_log.opened(node) as database:
        sql = "SELECT COUNT(*) FROM kept_heads"
        return int(database.read_sync(lambda db: db.execute(sql).fetchone()[0]))


def test_heads_that_are_not_a_peers_own_are_refused_and_not_kept(
    victim: Node, tmp_path: Path
) -> None:
    peer, other = HostilePeer(tmp_path), HostilePeer(tmp_path, "other")
    file = tmp_path / "head.json"
    victim.run("audit", "head", "--export", str(file))
    victims = read_head_file(file.read_bytes())
    bad = {
        "another facility's, rightly signed": pb.GivenHead(head=own_head(other, 5, bytes(32))),
        "the victim's own": pb.GivenHead(head=victims),
        "of no entry": pb.GivenHead(head=own_head(peer, 0, bytes(32))),
        "beyond all numbers": pb.GivenHead(head=own_head(peer, 2**63, bytes(32))),
        "noise": pb.GivenHead(head=b"noise"),
        "much noise": pb.GivenHead(head=b"n" * 40_000),
        "a proof that is too long": pb.GivenHead(
            head=own_head(peer, 5, bytes(32)), links=bytes(DIGEST_BYTES * (MAX_LINKS + 1))
        ),
        "a broken proof": pb.GivenHead(head=own_head(peer, 5, bytes(32)), links=b"x"),
    }

    async def work() -> None:
        identity = await trio.to_thread.run_sync(peer.pair_with, victim)
        async with peer.channel(victim, identity) as channel:
            taken = []
            for what, given in bad.items():
                with suppress(NodeError):
                    await say(channel, given)
                    taken.append(what)
            assert taken == []
            # What it says of the victim's own log has to be the victim's word.
            for lie in (own_head(peer, 1, bytes(32)), own_head(other, 1, bytes(32))):
                await say(channel, pb.GivenHead(), pb.KeptHead(head=lie))
            with pytest.raises(NodeError):
                await say(channel, pb.GivenHead(), pb.KeptHead(head=b"noise"))

    run(work)
    assert "alarm.audit-log" not in victim.run("audit", "--alarms")
    victim.run("audit", "verify")
    victim.stop()
    assert kept_rows(victim) == 0
    victim.start()


def test_head_of_an_entry_that_was_made_while_a_peers_clock_was_ahead_is_kept(
    victim: Node, tmp_path: Path
) -> None:
    """It parted the two for as long as the clock had been ahead, up to two days."""
    peer = HostilePeer(tmp_path)
    future = now() + 36 * 3_600_000

    async def work() -> None:
        identity = await trio.to_thread.run_sync(peer.pair_with, victim)
        async with peer.channel(victim, identity) as channel:
            await say(channel, pb.GivenHead(head=own_head(peer, 5, bytes(32), future)))

    run(work)
    victim.stop()
    assert kept_rows(victim) == 1
    victim.start()


def test_peer_that_shows_a_new_log_with_every_hello_raises_one_alarm_and_fills_nothing(
    victim: Node, tmp_path: Path
) -> None:
    peer = HostilePeer(tmp_path)

    async def work() -> None:
        identity = await trio.to_thread.run_sync(peer.pair_with, victim)
        async with peer.channel(victim, identity) as channel:
            for n in range(200):
                given = pb.GivenHead(head=own_head(peer, 5 + n % 3, n.to_bytes(32, "big")))
                try:
                    answer = await say(channel, given)
                except PeerBusy:
                    break
                assert all(
                    open_head(kept.head).facility == peer.facility for kept in answer.kept_heads
                )

    run(work)
    alarms = victim.json("audit", "--alarms")["entries"]
    assert [entry["kind"] for entry in alarms] == ["alarm.peer-audit-log"]
    victim.run("audit", "verify")
    victim.stop()
    assert 1 <= kept_rows(victim) <= MOST_EVIDENCE + 3
    victim.start()
