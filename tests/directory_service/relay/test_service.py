"""The relay: real sockets, joined once and only by whom the ticket names; bounds that hold."""

import errno
import random
import secrets
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from time import time
from typing import Any

import pytest
import trio
from emix.documents.v1 import documents_pb2 as documents
from structlog.testing import capture_logs

from directory_service.alarms import Alarms
from directory_service.relay import service as relay_module
from directory_service.relay.service import Limits, Relay, serve_relay
from node.crypto.signing import SigningKey
from node.documents.tickets import (
    ALIVE,
    JOINED,
    LOOK_OUT,
    MOVE,
    Ticket,
    TicketSigner,
    certify_tickets,
)
from node.domain.ids import FacilityId, NodeId

NETWORK, OTHER, TICKETS = SigningKey.new(), SigningKey.new(), SigningKey.new()
ADDRESS = "relay.example.org:443"
SIGNER = TicketSigner(
    TICKETS,
    documents.SignedBytes.FromString(
        certify_tickets(NETWORK, TICKETS.public, [ADDRESS], time() + 3600)
    ),
)


def facility(n: int) -> FacilityId:
    return FacilityId(bytes([n]) * 32)


def make_ticket(caller: int = 1, target: int = 2, address: str = ADDRESS) -> Ticket:
    node = NodeId(secrets.token_bytes(32))
    return Ticket.new(address, facility(caller), node, facility(target), node, time())


class Client:
    """Connects to the relay."""

    def __init__(self, port: int, stack: AsyncExitStack) -> None:
        self._port = port
        self._stack = stack

    async def connect(self) -> trio.SocketStream:
        stream = await trio.open_tcp_stream("127.0.0.1", self._port)
        await self._stack.enter_async_context(stream)
        return stream

    async def show(self, half: bytes) -> trio.SocketStream:
        stream = await self.connect()
        await stream.send_all(struct.pack(">H", len(half)) + half)
        return stream

    async def join(
        self, ticket: Ticket, signer: TicketSigner = SIGNER
    ) -> tuple[trio.SocketStream, trio.SocketStream]:
        a = await self.show(signer.sign(ticket))
        b = await self.show(signer.sign(ticket.other_half()))
        assert await a.receive_some(1) == JOINED
        assert await b.receive_some(1) == JOINED
        return a, b

    async def refusal(self, half: bytes) -> str:
        return (await read_all(await self.show(half))).decode()


async def read_all(stream: trio.SocketStream) -> bytes:
    data = b""
    with trio.fail_after(20), suppress(trio.BrokenResourceError):
        while piece := await stream.receive_some():
            data += piece
    return data


@asynccontextmanager
async def running(
    limits: Limits | None = None,
    clock: Callable[[], float] = time,
    alarms: Alarms | None = None,
) -> AsyncGenerator[tuple[Relay, Client]]:
    relay = Relay(ADDRESS, NETWORK.public, limits or Limits(), clock, alarms)
    async with serve_relay(relay, "127.0.0.1:0") as port, AsyncExitStack() as stack:
        yield relay, Client(port, stack)


async def test_bytes_go_both_ways_whole_and_half_closing_is_passed_on() -> None:
    async with running() as (relay, client):
        a, b = await client.join(make_ticket())
        there, back = random.Random(1).randbytes(9_000_001), random.Random(2).randbytes(3_000_001)
        found: dict[str, bytes] = {}

        async def send(stream: trio.SocketStream, data: bytes) -> None:
            await stream.send_all(data)
            await stream.send_eof()

        async def receive(name: str, stream: trio.SocketStream) -> None:
            found[name] = await read_all(stream)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, a, there)
            nursery.start_soon(send, b, back)
            nursery.start_soon(receive, "b", b)
            nursery.start_soon(receive, "a", a)
        assert (found["b"], found["a"]) == (there, back)
        await a.aclose()
        await b.aclose()
        assert relay.figures.bytes == len(there) + len(back)
        assert relay.figures.bytes_of == {facility(1): len(there), facility(2): len(back)}
        with trio.fail_after(10):
            while relay.figures.open_pairs or relay._connections:
                await trio.lowlevel.checkpoint()
        assert not relay._unknown_of
        assert not relay._streams


def tls_client() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.mark.parametrize("within", [(True, True), (True, False), (False, True)])
async def test_either_side_may_come_within_tls(within: tuple[bool, bool]) -> None:
    async with running() as (relay, client):
        ticket = make_ticket()
        ends: list[Any] = []
        for half, is_tls in zip((ticket, ticket.other_half()), within, strict=True):
            stream: Any = await client.connect()
            if is_tls:
                stream = trio.SSLStream(stream, tls_client(), server_hostname="relay.example.org")
            shown = SIGNER.sign(half)
            await stream.send_all(struct.pack(">H", len(shown)) + shown)
            ends.append(stream)
        assert [bytes(await end.receive_some(1)) for end in ends] == [JOINED, JOINED]
        there, back = random.Random(3).randbytes(3_000_001), random.Random(4).randbytes(2_000_001)
        found: dict[int, bytes] = {}

        async def receive(n: int, size: int) -> None:
            data = b""
            while len(data) < size:
                data += bytes(await ends[n].receive_some())
            found[n] = data

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends[0].send_all, there)
            nursery.start_soon(ends[1].send_all, back)
            nursery.start_soon(receive, 1, len(there))
            nursery.start_soon(receive, 0, len(back))
        assert found == {0: back, 1: there}
        assert relay.figures.bytes == len(there) + len(back)
        await trio.aclose_forcefully(ends[0])  # TLS knows no half-closed connections
        with trio.fail_after(10), suppress(trio.BrokenResourceError):
            assert not await ends[1].receive_some()
        with trio.fail_after(10):
            while relay.figures.open_pairs or relay._connections:
                await trio.lowlevel.checkpoint()


async def test_refusal_is_said_within_tls_to_who_came_so() -> None:
    async with running() as (_, client):
        connection = await client.connect()
        stream = trio.SSLStream(connection, tls_client(), server_hostname="relay.example.org")
        await stream.send_all(b"\0\0")
        with trio.fail_after(10):
            assert b"does not begin with a relay ticket" in await stream.receive_some()


async def test_tls_that_is_never_finished_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "HELLO_SECONDS", 0.2)
    async with running() as (relay, client):
        for hello in (b"\x16", b"\x16\x03\x01\x40\0", b"\x16 nonsense that is no TLS"):
            stream = await client.connect()
            await stream.send_all(hello)
            await read_all(stream)
        with trio.fail_after(10):
            while relay._connections:
                await trio.lowlevel.checkpoint()
        assert not relay._unknown_of


async def test_ticket_is_used_once_by_each_side() -> None:
    async with running() as (_, client):
        ticket = make_ticket()
        a, b = await client.join(ticket)
        for half in (ticket, ticket.other_half()):
            assert "used before" in await client.refusal(SIGNER.sign(half))
        await a.send_all(b"still joined")
        assert await b.receive_some() == b"still joined"


async def test_fifty_that_show_one_half_at_once_are_one() -> None:
    async with running() as (_, client):
        ticket = make_ticket()
        answers: list[bytes] = []
        all_but_one = trio.Event()

        async def show() -> None:
            answers.append(await (await client.show(SIGNER.sign(ticket))).receive_some(1))
            if len(answers) == 49:
                all_but_one.set()

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(show)
            await all_but_one.wait()
            other = await client.show(SIGNER.sign(ticket.other_half()))
            assert await other.receive_some(1) == JOINED
        assert answers.count(JOINED) == 1


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: TicketSigner(OTHER, SIGNER.certificate).sign(make_ticket()), "signature"),
        (
            lambda: TicketSigner(
                OTHER,
                documents.SignedBytes.FromString(
                    certify_tickets(OTHER, OTHER.public, [ADDRESS], time() + 3600)
                ),
            ).sign(make_ticket()),
            "signature",
        ),
        (
            lambda: TicketSigner(
                TICKETS,
                documents.SignedBytes.FromString(
                    certify_tickets(NETWORK, TICKETS.public, [ADDRESS], time() - 1)
                ),
            ).sign(make_ticket()),
            "has expired",
        ),
        (lambda: SIGNER.sign(make_ticket(address="other.example.org:443")), "has not named"),
        (lambda: SIGNER.sign(make_ticket()) + b"\x7a\x04ride", "upgrade emix"),
        (lambda: b"\x16\x03\x01" + bytes(200), "not a valid relay ticket"),
        (lambda: bytes(2049), "does not begin with a relay ticket"),
    ],
)
async def test_what_is_no_ticket_for_this_relay_is_refused(
    make: Callable[[], bytes], reason: str
) -> None:
    async with running() as (relay, client):
        assert reason in await client.refusal(make())
        assert relay.figures.refused == 1


async def test_expired_ticket_is_refused() -> None:
    async with running(clock=lambda: time() + 61) as (_, client):
        assert "expired" in await client.refusal(SIGNER.sign(make_ticket()))


async def test_replays_at_a_relay_are_told_of() -> None:
    alarms = Alarms()
    async with running(alarms=alarms) as (_, client):
        ticket = make_ticket()
        await client.join(ticket)
        for _ in range(3):
            assert "used before" in await client.refusal(SIGNER.sign(ticket))
        [text] = alarms.texts()
        assert facility(1).short() in text
        assert "3 times" in text
        # Nobody raises one without a ticket.
        assert await client.refusal(b"noise")
        assert alarms.total == 3


async def test_halves_of_different_tickets_are_not_joined() -> None:
    async with running() as (_, client):
        ticket, other = make_ticket(1, 2), make_ticket(3, 2)
        stranger = Ticket(
            ticket.id,
            other.relay,
            False,
            other.caller_facility,
            other.caller,
            other.target_facility,
            other.target,
            other.expires_seconds,
        )
        waiting = await client.show(SIGNER.sign(ticket))
        assert "different tickets" in await client.refusal(SIGNER.sign(stranger))
        await waiting.aclose()


async def test_half_whose_other_does_not_come_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "WAIT_SECONDS", 0.2)
    async with running() as (relay, client):
        assert "did not connect within" in await client.refusal(SIGNER.sign(make_ticket()))
        assert not relay._waiting


async def test_connection_that_shows_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "HELLO_SECONDS", 0.2)
    async with running() as (relay, client):
        stream = await client.connect()
        assert b"no ticket was presented within" in await read_all(stream)
        assert not relay._connections


async def test_idle_pair_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "IDLE_SECONDS", 0.3)
    async with running() as (relay, client):
        a, b = await client.join(make_ticket())
        assert await read_all(a) == await read_all(b) == b""
        assert relay.figures.open_pairs == 0


async def test_end_that_breaks_ends_the_other() -> None:
    async with running() as (_, client):
        a, b = await client.join(make_ticket())
        reset = struct.pack("ii", 1, 0)  # instead of an end
        a.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        await a.aclose()
        assert await read_all(b) == b""


async def test_bounds_hold_and_are_given_back() -> None:
    limits = Limits(streams_of_facility=2, unknown_of_address=2)
    async with running(limits) as (relay, client):
        first, second = await client.join(make_ticket(1, 2)), await client.join(make_ticket(1, 3))
        ticket = make_ticket(4, 1)
        waiting = await client.show(SIGNER.sign(ticket))
        assert "too many streams" in await client.refusal(SIGNER.sign(ticket.other_half()))
        assert b"too many streams" in await read_all(waiting)  # both sides learn why
        silent = [await client.connect() for _ in range(2)]
        assert b"from one address" in await read_all(await client.connect())
        for stream in (*first, *second, *silent):
            await stream.aclose()
        with trio.fail_after(10):
            while relay._connections:
                await trio.lowlevel.checkpoint()
        await client.join(make_ticket(1, 2))


async def test_two_facilities_do_not_take_all_that_one_of_them_has() -> None:
    async with running(Limits(streams_of_pair=2, waiting_of_facility=2)) as (_, client):
        for _ in range(2):
            await client.join(make_ticket(1, 2))
        ticket = make_ticket(1, 2)
        await client.show(SIGNER.sign(ticket))
        assert "these two" in await client.refusal(SIGNER.sign(ticket.other_half()))
        await client.join(make_ticket(3, 2))
        for _ in range(2):
            await client.show(SIGNER.sign(make_ticket(4, 2)))
        assert "wait for their other side" in await client.refusal(SIGNER.sign(make_ticket(4, 2)))


async def test_strangers_do_not_take_the_places_of_who_has_a_ticket() -> None:
    limits = Limits(connections=8, unknown_of_address=100)
    async with running(limits) as (relay, client):
        silent = [await client.connect() for _ in range(4)]
        assert b"full" in await read_all(await client.connect())
        await silent.pop().aclose()
        with trio.fail_after(10):
            while relay._unknown_of.total() == 4:
                await trio.lowlevel.checkpoint()
        for n in (1, 3):  # one after the other, through the one place that is left
            await client.join(make_ticket(n, n + 1))


async def test_ticket_from_before_the_start_is_refused_since_it_may_be_spent() -> None:
    now = time()
    async with running(clock=lambda: now) as (_, client):
        node = NodeId(bytes(32))
        ticket = Ticket.new(ADDRESS, facility(1), node, facility(2), node, now - 5)
        assert "before the relay started" in await client.refusal(SIGNER.sign(ticket))
        fresh = Ticket.new(ADDRESS, facility(1), node, facility(2), node, now)
        await client.join(fresh)


async def test_partner_uses_up_its_own_bytes_and_not_the_others() -> None:
    limits = Limits(bytes_of_facility=100_000)
    async with running(limits) as (_, client):
        a, b = await client.join(make_ticket(1, 2))

        async def flood() -> None:
            with suppress(trio.BrokenResourceError):
                while True:
                    await a.send_all(bytes(50_000))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            assert len(await read_all(b)) >= 100_000
            nursery.cancel_scope.cancel()
        half = make_ticket(1, 3)
        await client.show(SIGNER.sign(half))
        assert "used up" in await client.refusal(SIGNER.sign(half.other_half()))
        await client.join(make_ticket(3, 2))  # whoever was flooded goes on


async def test_relay_that_is_full_says_so() -> None:
    async with running(Limits(connections=4)) as (_, client):
        for n in (1, 3):
            await client.join(make_ticket(n, n + 1))
        assert b"full" in await read_all(await client.connect())


async def test_facility_that_has_used_up_its_bytes_is_cut_off_until_tomorrow() -> None:
    now = 1_800_000_000.0
    certificate = documents.SignedBytes.FromString(
        certify_tickets(NETWORK, TICKETS.public, [ADDRESS], now + 10 * 86400)
    )
    signer = TicketSigner(TICKETS, certificate)

    def ticket() -> Ticket:
        node = NodeId(bytes(32))
        return Ticket.new(ADDRESS, facility(1), node, facility(2), node, now)

    limits = Limits(bytes_of_facility=100_000)
    async with running(limits, lambda: now) as (_, client):
        a, b = await client.join(ticket(), signer)
        received = trio.Event()

        async def receive() -> None:
            assert len(await read_all(b)) >= 100_000
            received.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            with suppress(trio.BrokenResourceError):
                while not received.is_set():
                    await a.send_all(bytes(50_000))
        half = ticket()
        waiting = await client.show(signer.sign(half))
        assert "used up" in await client.refusal(signer.sign(half.other_half()))
        await waiting.aclose()
        now += 86400
        await client.join(ticket(), signer)


async def test_pairs_share_the_line_evenly_however_many_connections_they_have() -> None:
    enough = 3 * 2**20
    async with running(Limits(bytes_a_second=8 * 2**20)) as (relay, client):

        async def keep_sending(stream: trio.SocketStream) -> None:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                while True:
                    await stream.send_all(bytes(2**16))

        async def keep_receiving(stream: trio.SocketStream) -> None:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                while await stream.receive_some():
                    pass

        async with trio.open_nursery() as nursery:
            for caller, target in [(1, 2)] * 4 + [(3, 4)]:
                a, b = await client.join(make_ticket(caller, target))
                nursery.start_soon(keep_sending, a)
                nursery.start_soon(keep_receiving, b)
            with trio.fail_after(60):
                while relay.figures.bytes_of[facility(3)] < enough:
                    await trio.sleep(0.01)
            shares = relay.figures.bytes_of[facility(1)] / relay.figures.bytes_of[facility(3)]
            nursery.cancel_scope.cancel()
        assert 0.7 < shares < 1.5  # four times as much without turns


async def test_who_waits_for_its_turn_is_not_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "IDLE_SECONDS", 0.3)
    data = bytes(40_000)
    async with running(Limits(bytes_a_second=1 << 15)) as (_, client):
        # Together they need four seconds; each waits far longer than it may be idle.
        pairs = [await client.join(make_ticket(n, n + 1)) for n in (1, 3, 5)]
        found: list[bytes] = []

        async def send(a: trio.SocketStream) -> None:
            await a.send_all(data)
            await a.send_eof()

        async def receive(b: trio.SocketStream) -> None:
            found.append(await read_all(b))
            await b.send_eof()

        async with trio.open_nursery() as nursery:
            for a, b in pairs:
                nursery.start_soon(send, a)
                nursery.start_soon(receive, b)
        assert found == [data] * 3


async def test_stranger_that_comes_again_and_again_is_shut_out_and_fills_no_log() -> None:
    with capture_logs() as logs:
        await _come_again_and_again()
    assert {line["log_level"] for line in logs} == {"debug"}


async def _come_again_and_again() -> None:
    async with running(Limits(a_minute_of_address=20)) as (relay, client):
        refused = 1
        with trio.fail_after(20):
            while "too many calls" not in await client.refusal(b"no ticket"):
                refused += 1
        assert refused > 20
        assert relay.figures.refused == refused
        assert "too many calls" in await client.refusal(SIGNER.sign(make_ticket()))


async def look_out(client: Client, half: bytes) -> trio.SocketStream:
    stream = await client.connect()
    await stream.send_all(struct.pack(">H", LOOK_OUT | len(half)) + half)
    return stream


async def test_pairs_are_asked_to_leave_before_the_relay_stops() -> None:
    async with running() as (relay, client):
        ticket = make_ticket()
        a, b = await client.join(ticket)
        watch = await look_out(client, SIGNER.sign(ticket))
        # What is not joined here, and a second one, are not looked out for.
        assert (
            "not joined"
            in (await read_all(await look_out(client, SIGNER.sign(make_ticket())))).decode()
        )
        with trio.fail_after(10):
            while not relay._looking_out:
                await trio.lowlevel.checkpoint()
        assert "already" in (await read_all(await look_out(client, SIGNER.sign(ticket)))).decode()
        left = trio.Event()

        async def leave() -> None:
            await relay.leave()
            left.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
            with trio.fail_after(10):
                assert await watch.receive_some(1) == MOVE
            # Bytes still pass, and nobody new comes in.
            await a.send_all(b"the rest")
            assert await b.receive_some() == b"the rest"
            assert "about to stop" in await client.refusal(SIGNER.sign(make_ticket()))
            assert not left.is_set()
            await a.aclose()
            await b.aclose()
            with trio.fail_after(10):
                await left.wait()


async def test_who_does_not_leave_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay_module, "LEAVE_SECONDS", 0.2)
    async with running() as (relay, client):
        await client.join(make_ticket())
        with trio.fail_after(10):
            await relay.leave()
        assert relay.figures.open_pairs == 1


async def test_second_connection_hears_signs_of_life_and_ends_with_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as (relay, client):
        ticket = make_ticket()
        a, b = await client.join(ticket)
        monkeypatch.setattr(relay_module, "LOOK_OUT_SECONDS", 0.01)
        watch = await look_out(client, SIGNER.sign(ticket))
        with trio.fail_after(10):  # or what stands between would end it
            assert await watch.receive_some(1) == ALIVE
        await watch.aclose()
        with trio.fail_after(10):
            while relay._looking_out:
                await trio.lowlevel.checkpoint()
        watch = await look_out(client, SIGNER.sign(ticket))
        await a.aclose()
        await b.aclose()
        assert set(await read_all(watch)) <= set(ALIVE)
        with trio.fail_after(10):
            while relay._connections:
                await trio.lowlevel.checkpoint()
        assert not relay._open
        assert not relay._looking_out


async def test_two_refusals_at_one_moment_end_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "WAIT_SECONDS", 0.05)
    async with running(Limits(streams_of_pair=0)) as (relay, client):
        for n in range(12):
            ticket = make_ticket()
            first = await client.show(SIGNER.sign(ticket))
            await trio.sleep(0.044 + 0.001 * n)  # about when it is given up
            second = await client.show(SIGNER.sign(ticket.other_half()))
            for stream in (first, second):
                assert await read_all(stream)
        with trio.fail_after(10):
            while relay._connections:
                await trio.lowlevel.checkpoint()


async def test_relay_that_lacks_memory_waits_before_it_accepts_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries = 0

    async def accept(_: trio.SocketListener) -> trio.SocketStream:
        nonlocal tries
        tries += 1
        await trio.lowlevel.checkpoint()
        raise OSError(errno.ENOMEM, "out of memory")

    monkeypatch.setattr(trio.SocketListener, "accept", accept)
    async with running():
        await trio.sleep(0.35)
    assert 1 <= tries < 50
