"""Relay tickets at a node: the network's own, once, few at a time, from whom is trusted."""

import secrets
import socket
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from time import time
from typing import Any

import pytest
import trio
import trio.testing

from node.crypto.signing import SigningKey
from node.documents.network import JoinLetter, Network, claim, invite
from node.documents.tickets import Ticket, certify_tickets, read_ticket_signer
from node.domain.events import TicketShown
from node.domain.ids import FacilityId, NetworkId, NodeId
from node.domain.network import NetworkView
from node.domain.relays import RelayPolicy
from node.errors import (
    DocumentError,
    LinkAltered,
    NodeError,
    PeerLeft,
    PeerTimeout,
    PeerUnreachable,
)
from node.federation.routes.dialing import Dialer
from node.federation.routes.relaying import (
    MAX_ACCEPTED,
    MAX_ACCEPTED_OF_FACILITY,
    Relaying,
    Way,
    _bound,
)

KEY, TICKETS = SigningKey.new(), SigningKey.new()
ME = NodeId(b"m" * 32)
RELAY, OTHER_RELAY = "relay.example.org:443", "other.example.org:443"
SIGNER = read_ticket_signer(
    TICKETS, certify_tickets(KEY, TICKETS.public, [RELAY, OTHER_RELAY], time() + 3600)
)
STRANGER = FacilityId(b"s" * 32)


def network() -> Network:
    invitation, token = invite(KEY, "Me", time())
    letter = JoinLetter(invitation, token, KEY.public, "Montana", ("h:1",), b"")
    membership = claim(letter, SigningKey.new().public, time())
    return Network("Montana", KEY.public, ("h:1",), b"", membership, NetworkView(), time())


def half(caller: FacilityId, *, target: NodeId = ME, relay: str = RELAY) -> bytes:
    node = NodeId(secrets.token_bytes(32))
    mine = FacilityId(bytes(32))
    return SIGNER.sign(Ticket.new(relay, caller, node, mine, target, time()).other_half())


def facility(n: int) -> FacilityId:
    return FacilityId(n.to_bytes(32, "big"))


async def not_a_stranger(facility: FacilityId) -> bool:
    return facility != STRANGER


accepting: list[Any] = []  # what `relaying` takes away
counted: list[tuple[str, int, str]] = []


@contextmanager
def brought(host: str, port: int, whose: str) -> Iterator[None]:
    counted.append((host, port, whose))
    yield
    counted.pop()


class Networked:
    """Knows the one network."""

    def get(self, network_id: NetworkId) -> Network | None:
        return network() if network_id == network().id else None

    def all(self) -> list[Network]:
        return [network()]


class Office:
    """A directory that gives the tickets that it is told to, and who hears of its forgeries."""

    def __init__(self) -> None:
        self.ticket = b""
        self.forgeries: list[str] = []

    async def ask_ticket(self, *_: object) -> tuple[Network, bytes]:
        return network(), self.ticket

    async def report_forgery(self, _: NetworkId, problem: str) -> None:
        self.forgeries.append(problem)


office = Office()


@asynccontextmanager
async def relaying(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[tuple[Relaying, list[FacilityId]]]:
    """A node that goes to relays and stays there."""
    gone: list[FacilityId] = []
    accepting[:] = [Relaying._accept]

    async def accept(self: Relaying, ticket: Ticket, _: bytes) -> None:
        gone.append(ticket.caller_facility)
        await trio.sleep_forever()

    monkeypatch.setattr(Relaying, "_accept", accept)
    found = Relaying(
        me=ME,
        home=folder,
        peer_service=lambda: "127.0.0.1:1",
        networks=Networked(),
        tickets=office,
        admit=not_a_stranger,
        report_forgery=office.report_forgery,
        policy=lambda: RelayPolicy(only=(RELAY,)),
        dialer=Dialer(),
        tls="auto",
        brought=brought,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.run)
        await trio.testing.wait_all_tasks_blocked()
        yield found, gone
        nursery.cancel_scope.cancel()


async def test_ticket_shown_again_and_again_is_used_once_and_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with relaying(tmp_path, monkeypatch) as (node, gone):
        ticket = half(facility(1))
        await node.accept_ticket(TicketShown(network().id, ticket))
        for _ in range(300):
            with pytest.raises(DocumentError, match="used before"):
                await node.accept_ticket(TicketShown(network().id, ticket))
        await trio.testing.wait_all_tasks_blocked()
        assert gone == [facility(1)]


async def test_own_half_of_a_ticket_is_for_the_peer_that_was_asked_for_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer, other, node_id = facility(1), facility(2), NodeId(b"n" * 32)

    def own(caller: NodeId, target: FacilityId) -> Ticket:
        return Ticket.new(RELAY, facility(0), caller, target, node_id, time())

    async with relaying(tmp_path, monkeypatch) as (node, _):
        office.forgeries.clear()

        async def tried(half: bytes) -> None:
            office.ticket = half
            async with node.way(await node.ticket_to(peer)):
                raise AssertionError("it was taken")

        for ticket in (own(ME, other), own(node_id, peer), own(ME, peer).other_half()):
            with pytest.raises(DocumentError, match="for another node"):
                await tried(SIGNER.sign(ticket))
        right = SIGNER.sign(own(ME, peer))
        with pytest.raises(PeerUnreachable):  # nobody is there
            await tried(right)
        with pytest.raises(DocumentError, match="used before"):
            await tried(right)
        assert len(office.forgeries) == 4


async def test_one_facility_has_few_ways_and_all_together_not_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with relaying(tmp_path, monkeypatch) as (node, gone):
        for _ in range(20):
            await node.accept_ticket(TicketShown(network().id, half(facility(1))))
        await trio.testing.wait_all_tasks_blocked()
        assert len(gone) == MAX_ACCEPTED_OF_FACILITY
        for n in range(2, 2 + MAX_ACCEPTED):
            await node.accept_ticket(TicketShown(network().id, half(facility(n))))
        await trio.testing.wait_all_tasks_blocked()
        assert len(gone) == node._most


async def test_strangers_and_relays_that_the_policy_forbids_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with relaying(tmp_path, monkeypatch) as (node, gone):
        await node.accept_ticket(TicketShown(network().id, half(STRANGER)))
        await node.accept_ticket(TicketShown(network().id, half(facility(1), relay=OTHER_RELAY)))
        for wrong in (half(facility(1), target=NodeId(bytes(32))), b"\xff" * 40):
            with pytest.raises(DocumentError):
                await node.accept_ticket(TicketShown(network().id, wrong))
        await trio.testing.wait_all_tasks_blocked()
        assert gone == []
        await node.accept_ticket(TicketShown(network().id, half(facility(1))))
        await trio.testing.wait_all_tasks_blocked()
        assert gone == [facility(1)]


async def test_what_comes_by_relay_counts_for_its_facility_and_not_for_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = map(trio.socket.from_stdlib_socket, socket.socketpair())

    async def joined(*_: object) -> trio.SocketStream:
        return trio.SocketStream(near)

    monkeypatch.setattr(Relaying, "_joined", joined)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with relaying(tmp_path, monkeypatch) as (node, _), listener:
        port = listener.socket.getsockname()[1]
        node._peer_service = lambda: f"127.0.0.1:{port}"
        ticket = Ticket.new(RELAY, facility(1), ME, facility(2), ME, time())
        node._running[ticket.id] = ticket.caller_facility
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(accepting[0], node, ticket, b"")
                async with await listener.accept() as came:
                    await trio.testing.wait_all_tasks_blocked()
                    end = came.socket.getpeername()
                    assert counted == [(*end, f"relayed {facility(1)}")]
                far.close()
    assert not counted


@pytest.mark.parametrize(
    ("address", "is_relayed"),
    [
        ("ipv4:10.0.0.1:4711", True),
        ("ipv6:%5B2001:db8::1%5D:4711", True),
        ("ipv4:10.0.0.2:4711", False),
        ("ipv4:10.0.0.1:471", False),
        ("ipv6:%5B2001:db8::2%5D:4711", False),
    ],
)
async def test_call_is_by_relay_if_its_whole_address_is_an_end_of_ours(
    address: str, is_relayed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with relaying(tmp_path, monkeypatch) as (node, _):
        node._accepted = {"10.0.0.1:4711", "[2001:db8::1]:4711"}
        assert node.is_relayed(address) is is_relayed


async def test_relay_that_alters_or_breaks_connections_again_and_again_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with relaying(tmp_path, monkeypatch) as (node, _):

        def said(relay: str, error: NodeError, *, was_connected: bool = True) -> str:
            return node.suspicion(relay, error, was_connected=was_connected)

        broke, altered = PeerUnreachable("broke"), LinkAltered("altered")
        assert "connected another facility" in said(RELAY, broke, was_connected=False)
        assert "altered bytes" in said(OTHER_RELAY, altered)
        assert set(node.avoided()) == {RELAY, OTHER_RELAY}
        await trio.sleep(61)
        # Twice an hour is what networks do.
        for _ in range(10):
            assert said(RELAY, broke) == ""
            await trio.sleep(10)
            assert [said(RELAY, PeerTimeout("silent")) for _ in range(20)] == [""] * 20  # one break
            assert said(RELAY, PeerLeft("stopping")) == ""
            await trio.sleep(3601)
        for _ in range(2):
            assert said(RELAY, broke) == ""
            await trio.sleep(10)
        assert "3 connections by the relay" in said(RELAY, broke)
        assert node.avoided() == [RELAY]
        await trio.sleep(61)
        assert node.avoided() == []
        for n in range(1000):
            assert said(f"relay{n}.example.org:443", broke) == ""
        assert len(node._broke) <= 16


@pytest.mark.parametrize(
    ("first", "silent_seconds", "is_given_up"),
    [("ours", 0, True), ("the relay's", 0, False), ("ours", 40, False), ("nobody's", 0, False)],
)
async def test_way_that_grpc_gives_up_is_told_from_one_that_breaks(
    first: str, silent_seconds: float, is_given_up: bool, tmp_path: Path
) -> None:
    """What gRPC says of it is not looked at: its words may change."""
    listener, path = await _bound(tmp_path)
    listener.listen(1)
    with trio.socket.socket(trio.socket.AF_INET) as door:
        await door.bind(("127.0.0.1", 0))
        door.listen(1)
        theirs = await trio.open_tcp_stream(*door.getsockname())
        relay = trio.SocketStream((await door.accept())[0])
    way = Way(f"unix:{path}", RELAY)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(way._pipe.carry, listener, relay)
        ours = await trio.open_unix_socket(str(path))
        await theirs.send_all(b"from the peer")
        assert await ours.receive_some(100)
        way._pipe.heard_time -= silent_seconds
        if first == "ours":
            await ours.aclose()
        elif first == "the relay's":
            await theirs.aclose()
        assert await way.was_given_up() is is_given_up
        nursery.cancel_scope.cancel()
    for end in (ours, theirs, relay):
        await end.aclose()
    listener.close()
