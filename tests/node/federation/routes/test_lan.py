"""Hints of the own network: whatever somebody announces is an address to try, or nothing."""

import secrets
import socket
from typing import Any

import ifaddr
import pytest
import trio
import trio_asyncio
from trio.testing import MockClock
from zeroconf import DNSOutgoing, DNSPointer, const  # type: ignore[attr-defined]
from zeroconf.asyncio import AsyncServiceInfo

from node.domain.ids import FacilityId, NodeId
from node.federation.routes import lan
from node.federation.routes.lan import Lan, own_addresses

ME, PEER = FacilityId(b"m" * 32), FacilityId(b"p" * 32)


@pytest.fixture(autouse=True)
def networks(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [ifaddr.IP("10.1.2.200", 24, "e"), ifaddr.IP("127.0.0.1", 8, "lo")]
    monkeypatch.setattr(ifaddr, "get_adapters", lambda: [ifaddr.Adapter("e", "e", found)])


def make() -> tuple[Lan, list[FacilityId]]:
    seen: list[FacilityId] = []
    return Lan(ME, NodeId(b"n" * 32), seen.append), seen


def says(facility: FacilityId, introduction: str = "7411") -> dict[bytes, bytes | None]:
    return {b"facility": str(facility).encode(), b"introduction": introduction.encode()}


def test_peer_that_announces_itself_is_tried_at_its_addresses() -> None:
    found, seen = make()
    found.seen("a", ["10.1.2.7"], 7410, says(PEER))
    assert found.endpoints(PEER) == ["10.1.2.7:7410"]
    assert found.introductions(PEER) == ["10.1.2.7:7411"]
    found.seen("a", ["10.1.2.7"], 7410, says(PEER))
    assert seen == [PEER]  # told once
    found.seen("a", ["10.1.2.8"], 7410, says(PEER))
    assert found.endpoints(PEER) == ["10.1.2.8:7410"]
    assert seen == [PEER, PEER]
    assert found.endpoints(ME) == []


def test_endpoint_that_failed_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = make()
    found.seen("a", ["10.1.2.7"], 7410, says(PEER))
    found.seen("b", ["10.1.2.8"], 7410, says(PEER))
    monkeypatch.setattr("time.monotonic", lambda: 1000.0)
    found.avoid("10.1.2.7:7410")
    assert found.endpoints(PEER) == ["10.1.2.8:7410"]
    monkeypatch.setattr("time.monotonic", lambda: 1121.0)
    assert found.endpoints(PEER) == ["10.1.2.7:7410", "10.1.2.8:7410"]
    for n in range(3000):
        found.avoid(f"10.1.2.9:{n}")
    assert len(found._avoided) <= 1000


@pytest.mark.parametrize(
    ("addresses", "port", "properties"),
    [
        (["203.0.113.9", "10.1.3.7"], 7410, says(PEER)),  # not of the own network
        ([], 7410, says(PEER)),
        (["10.1.2.7"], 0, says(PEER)),
        (["10.1.2.7"], 7410, {}),
        (["10.1.2.7"], 7410, {b"facility": None}),
        (["10.1.2.7"], 7410, {b"facility": b"\xff\xfe", b"introduction": b"1"}),
        (["10.1.2.7"], 7410, {b"facility": b"nobody"}),
        (["10.1.2.7"], 7410, says(PEER, "seven")),
        (["10.1.2.7"], 7410, says(ME)),
        (["nonsense"], 7410, says(PEER)),
        (["127.0.0.1", "127.8.8.8", "10.1.2.200"], 22, says(PEER)),  # this machine itself
    ],
)
def test_nonsense_is_left_alone(
    addresses: list[str], port: int, properties: dict[bytes, bytes | None]
) -> None:
    found, seen = make()
    found.seen("a", addresses, port, properties)
    assert (found.endpoints(PEER), found.endpoints(ME), seen) == ([], [], [])


def test_who_floods_the_network_fills_no_memory_and_drowns_nobody_who_is_known() -> None:
    found, _ = make()
    found.seen("peer", ["10.1.2.7"], 7410, says(PEER))
    for n in range(100):  # in the peer's name, too
        found.seen(f"false {n}", [f"10.1.2.{n + k}" for k in range(9)], 7410, says(PEER))
    assert found.endpoints(PEER)[0] == "10.1.2.7:7410"
    assert len(found.endpoints(PEER)) <= 4
    for n in range(3000):
        someone = FacilityId(secrets.token_bytes(32))
        found.seen(f"{n}", [f"10.1.2.{k}" for k in range(99)], 7410, says(someone))
    assert len(found._hints) <= 1000
    found.seen("peer", ["10.1.2.70"], 7410, says(PEER))
    assert found.endpoints(PEER)[0] == "10.1.2.70:7410"


def test_only_addresses_that_others_can_reach_are_announced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert own_addresses("127.0.0.1:7410") == []
    assert own_addresses("10.1.2.3:7410") == ["10.1.2.3"]
    assert own_addresses("[::1]:7410") == []
    assert own_addresses("localhost:7410") == []
    ips = [ifaddr.IP("127.0.0.1", 8, "lo"), ifaddr.IP("10.1.2.3", 24, "e")]
    ips.append(ifaddr.IP(("2001:db8::1", 0, 0), 64, "e"))
    monkeypatch.setattr(ifaddr, "get_adapters", lambda: [ifaddr.Adapter("e", "e", ips)])
    assert own_addresses("0.0.0.0:7410") == ["10.1.2.3"]


def packet(alias: str) -> bytes:
    """An answer that nobody asked for: a service of ours under some name."""
    out = DNSOutgoing(const._FLAGS_QR_RESPONSE | const._FLAGS_AA)
    pointer = DNSPointer("_emix._tcp.local.", const._TYPE_PTR, const._CLASS_IN, 4500, alias)
    out.add_answer_at_time(pointer, 0)
    return bytes(out.packets()[0])


def test_no_packet_ends_the_node_or_keeps_it_from_hearing_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lan, "own_addresses", lambda _: ["127.0.0.1"])
    monkeypatch.setattr(lan, "_RESOLVE_MILLISECONDS", 50)
    heard = []

    def seen(self: Lan, *_: object) -> None:
        heard.append("a neighbour")
        raise ValueError("a defect")

    monkeypatch.setattr(Lan, "seen", seen)

    async def resolve(info: Any, zeroconf: Any, _: int) -> bool:
        return bool(info.name.startswith("real"))

    monkeypatch.setattr(AsyncServiceInfo, "async_request", resolve)

    async def work() -> None:
        found, _ = make()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(found.run, "0.0.0.0:7410", "0.0.0.0:7411")
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            hostile = ["x.y.", "evil._http._tcp.local.", "\x01._emix._tcp.local.", "."]
            hostile += [f"nobody{n}._emix._tcp.local." for n in range(60)]
            with sender, trio.fail_after(30):
                while len(heard) < 1:  # it need not listen yet
                    for alias in (*hostile, f"real{secrets.token_hex(4)}._emix._tcp.local."):
                        sender.sendto(packet(alias), ("127.0.0.1", 5353))
                    sender.sendto(b"\xff" * 600, ("127.0.0.1", 5353))
                    await trio.sleep(0.1)
            # What fails in the loop that gRPC uses still ends the node.
            assert trio_asyncio.current_loop.get().get_exception_handler() is None
            nursery.cancel_scope.cancel()

    trio_asyncio.run(work)


class Announcing(Lan):
    """Notes at which addresses it would announce."""

    def __init__(self) -> None:
        super().__init__(ME, NodeId(b"n" * 32), lambda _: None)
        self.at: list[list[str]] = []
        self.running = 0

    async def announce(self, addresses: Any, peer: int, introduction: int) -> None:
        self.at.append(list(addresses))
        self.running += 1
        try:
            await trio.sleep_forever()
        finally:
            self.running -= 1


async def test_announcements_follow_the_addresses_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    def has(*ips: str) -> None:
        found = [ifaddr.IP(ip, 24, "e") for ip in ips]
        monkeypatch.setattr(ifaddr, "get_adapters", lambda: [ifaddr.Adapter("e", "e", found)])

    has()  # the interface comes later
    announcing = Announcing()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(announcing.run, "0.0.0.0:7410", "0.0.0.0:7411")
        for ips in ([], ["10.1.2.3"], ["10.1.2.9"], ["10.1.2.9", "10.7.7.7"], []):
            has(*ips)
            await trio.sleep(3 * lan.LOOK_SECONDS)
            assert announcing.running == bool(ips)
        nursery.cancel_scope.cancel()
    assert announcing.at == [["10.1.2.3"], ["10.1.2.9"], ["10.1.2.9", "10.7.7.7"]]
