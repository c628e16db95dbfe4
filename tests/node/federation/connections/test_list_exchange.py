"""Lists pass between peers until both have the newest, and to nobody who is not in the network."""

from types import SimpleNamespace
from typing import Any

import pytest
from emix.exchange.v1 import exchange_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st

from node.domain.ids import FacilityId, NetworkId
from node.domain.network import NO_LIST, ListPlace
from node.errors import NotFound, PeerBusy, RemoteProtocolError
from node.federation.connections.list_exchange import Compared, ListExchange, plan

NETWORKS = [NetworkId(bytes([n]) * 32) for n in range(3)]
A, B, STRANGER = (FacilityId(name * 32) for name in (b"a", b"b", b"s"))


class FakeLists:
    """The lists of one node: a list is its number, in one epoch, and names both facilities."""

    def __init__(self, numbers: dict[NetworkId, int]) -> None:
        self.numbers = numbers
        self.names = {A, B}

    def list_places(self) -> dict[NetworkId, ListPlace]:
        return {n: (1, k) if k else NO_LIST for n, k in self.numbers.items()}

    def list_places_for(self, facility: FacilityId) -> dict[NetworkId, ListPlace]:
        return {n: (1, k) for n, k in self.numbers.items() if k and facility in self.names}

    def list_for(self, facility: FacilityId, network_id: NetworkId) -> bytes:
        if facility not in self.names or not self.numbers.get(network_id):
            raise NotFound("none")
        return str(self.numbers[network_id]).encode()

    async def accept(self, _: FacilityId, network_id: NetworkId, encoded: bytes) -> None:
        if network_id in self.numbers:
            self.numbers[network_id] = max(self.numbers[network_id], int(encoded))


class FakeChannel:
    """Calls the other side's handlers."""

    def __init__(self, other: ListExchange, caller: FacilityId) -> None:
        self._handlers = {"GetList": other.get_list, "GiveList": other.give_list}
        self._caller = SimpleNamespace(facility_id=caller)
        self.calls = 0

    async def unary(self, method: Any, request: Any, *, timeout: float) -> Any:
        self.calls += 1
        call: Any = SimpleNamespace(caller=self._caller, request=request)
        return await self._handlers[method.name](call)

    async def bring(self, method: Any, requests: Any, *, timeout: float) -> Any:
        self.calls += 1
        left = iter(requests)

        async def read() -> Any:
            return next(left, None)

        call: Any = SimpleNamespace(caller=self._caller, account="A", read=read)
        return await self._handlers[method.name](call)


class Pair:
    """A, which dials, and B; they say Hello to each other."""

    def __init__(self, ours: dict[NetworkId, int], theirs: dict[NetworkId, int]) -> None:
        self.ours, self.theirs = FakeLists(ours), FakeLists(theirs)
        self.a = ListExchange(self.ours, self.ours.accept)
        self.b = ListExchange(self.theirs, self.theirs.accept)
        self.channel: Any = FakeChannel(self.b, A)
        self.compared = Compared()

    async def say_hello(self) -> None:
        await self.a.compare(B, self.channel, self.b.known(A), self.compared)


numbers = st.dictionaries(st.sampled_from(NETWORKS), st.integers(0, 5))


@given(numbers, numbers)
async def test_both_have_the_newer_list_after_one_hello_whoever_had_it(
    ours: dict[NetworkId, int], theirs: dict[NetworkId, int]
) -> None:
    before = (dict(ours), dict(theirs))
    pair = Pair(ours, theirs)
    await pair.say_hello()
    for network in NETWORKS:
        known = [side[network] for side in before if side.get(network)]
        for side, had in ((ours, before[0]), (theirs, before[1])):
            if network not in had:  # nobody is given a list of a network that it is not in
                assert network not in side
            elif side is ours or theirs.get(network):
                assert side[network] == max(known, default=0)
    calls = pair.channel.calls
    await pair.say_hello()
    assert pair.channel.calls == calls  # nothing twice


async def test_list_that_a_directory_is_just_telling_is_left_to_it() -> None:
    [network, *_] = NETWORKS
    pair = Pair({network: 1}, {network: 1})
    await pair.say_hello()
    pair.theirs.numbers[network] = 2  # its directory told it a moment before ours tells us
    await pair.say_hello()
    assert pair.channel.calls == 0
    await pair.say_hello()  # ours has not
    assert (pair.channel.calls, pair.ours.numbers[network]) == (1, 2)
    pair.ours.numbers[network] = 3
    await pair.say_hello()
    assert pair.theirs.numbers[network] == 2
    await pair.say_hello()
    assert pair.theirs.numbers[network] == 3


async def test_stranger_to_a_network_learns_nothing_of_it() -> None:
    [network, *_] = NETWORKS
    lists = FakeLists({network: 7})
    sharing = ListExchange(lists, lists.accept)
    assert sharing.known(STRANGER) == []
    assert [(k.epoch, k.number) for k in sharing.known(A)] == [(1, 7)]
    call: Any = SimpleNamespace(
        caller=SimpleNamespace(facility_id=STRANGER),
        request=pb.GetListRequest(network_id=network.digest),
    )
    with pytest.raises(NotFound):
        await sharing.get_list(call)
    call.request = pb.GetListRequest(network_id=b"short")
    with pytest.raises(RemoteProtocolError):
        await sharing.get_list(call)


async def test_peer_that_asks_again_and_again_is_refused_and_others_are_not() -> None:
    [network, *_] = NETWORKS
    lists = FakeLists({network: 7})
    sharing = ListExchange(lists, lists.accept)

    def call(facility: FacilityId) -> Any:
        caller = SimpleNamespace(facility_id=facility)
        request = pb.GetListRequest(network_id=network.digest)
        return SimpleNamespace(caller=caller, request=request)

    async def ask_again_and_again() -> None:
        for _ in range(50):  # of so many one is refused, whichever minute they are in
            await sharing.get_list(call(A))

    with pytest.raises(PeerBusy):
        await ask_again_and_again()
    assert (await sharing.get_list(call(B))).list == b"7"


async def test_nonsense_in_a_hello_passes_nothing_on_and_ends_nothing() -> None:
    pair = Pair({NETWORKS[0]: 1}, {})
    nonsense = [pb.KnownList(network_id=b"short", number=9)]
    await pair.a.compare(B, pair.channel, nonsense, pair.compared)
    many = [pb.KnownList(network_id=bytes([n]) * 32, number=2**64 - 1) for n in range(100, 200)]
    await pair.a.compare(B, pair.channel, many, pair.compared)
    assert pair.channel.calls == 0


def test_number_that_a_peer_makes_up_is_asked_for_once_a_hello_and_no_more() -> None:
    [network, *_] = NETWORKS
    ours = {network: (1, 1)}
    found = plan(Compared(), ours, ours, {network: (1, 2**63)})
    assert (found.to_get, found.to_give) == (frozenset({network}), frozenset())


def test_list_of_a_later_epoch_is_the_newer_one_whatever_its_number() -> None:
    [network, *_] = NETWORKS
    ours, theirs = {network: (2, 1)}, {network: (1, 9_000_000)}
    assert plan(Compared(), ours, ours, theirs).to_give == frozenset({network})
    assert plan(Compared(), theirs, theirs, ours).to_get == frozenset({network})
