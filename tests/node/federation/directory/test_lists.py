"""A directory that does not show what peers have is told of; one that does its work is not."""

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from emix.directory.v1 import directory_pb2 as pb

from node.documents.lists import make_change, open_list, sign_list
from node.documents.network import Network
from node.domain.ids import FacilityId, InvitationId
from node.domain.network import ListProblem, NetworkView
from node.errors import PeerUnreachable
from node.federation.directory.lists import SHOWN_SECONDS, Lists
from tests.support.members import KEY, ME, NETWORK

NOW = time.time()
SESSION = (("emix-session", "session"),)
INVITATIONS = [InvitationId(bytes([n]) * 32) for n in range(60)]


def signed(number: int) -> bytes:
    members = {i: FacilityId(i.digest) for i in INVITATIONS[: 40 + number]}
    return sign_list(KEY, NETWORK, number, members, frozenset(), NOW)


class Node:
    """What a node knows of one network."""

    def __init__(self, number: int) -> None:
        self.alarms: list[str] = []
        self.network = Network(
            name="Montana",
            network_key=KEY.public,
            endpoints=("h:1",),
            root_certificate=b"",
            membership=ME.membership,
            view=NetworkView(),
            joined_time=0.0,
        )
        self.take(signed(number))

    def take(self, encoded: bytes) -> str:
        following = self.network.view.after(open_list(encoded, KEY.public, NOW), NOW)
        if isinstance(following, ListProblem):
            return following.value
        if following is not self.network.view:
            fields = {s: getattr(self.network, s) for s in Network.__slots__}
            self.network = Network(**fields | {"view": following, "signed_list": encoded})
        return ""

    @property
    def number(self) -> int:
        assert self.network.view.latest is not None
        return self.network.view.latest.number

    async def accept_list(self, _: Any, encoded: bytes) -> bool:
        problem = self.take(encoded)
        if problem:
            self.alarms.append(problem)
        return self.network.signed_list == encoded

    async def report_forgery(self, _: Any, problem: str) -> None:
        self.alarms.append(problem)


class Directory:
    """A channel to a directory that has a list, and says so or does not."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.given: list[bytes] = []
        self.is_away = False
        self.says_known = False

    async def unary(self, method: Any, request: Any, *, timeout: float, metadata: Any = ()) -> Any:
        if self.is_away:
            raise PeerUnreachable("away")
        whole = signed(self.number)
        if self.says_known or request.known_list == open_list(whole, KEY.public, NOW).digest:
            return pb.GetNetworkResponse(list_is_known=True)
        if not metadata:
            return pb.GetNetworkResponse(list_epoch=1, list_number=self.number)
        return pb.GetNetworkResponse(list=whole)

    async def bring(self, method: Any, requests: Any, *, timeout: float) -> Any:
        if self.is_away:
            raise PeerUnreachable("away")
        assert method.name == "Publish"
        self.given.append(b"".join(request.list for request in requests))
        self.number = open_list(self.given[-1], KEY.public, NOW).number
        return pb.PublishResponse()


def change(base: int, number: int) -> bytes:
    before, encoded = open_list(signed(base), KEY.public, NOW), signed(number)
    found = make_change(before, open_list(encoded, KEY.public, NOW), encoded)
    assert found
    return found


def make(node: int, directory: int) -> tuple[Node, Any]:
    return Node(node), Directory(directory)


@asynccontextmanager
async def connected(node: Node, directory: Any) -> AsyncGenerator[Lists]:
    lists = Lists(lambda _: node.network, node)
    async with trio.open_nursery() as nursery:
        await lists.compare(directory, NETWORK)
        nursery.start_soon(lists.keep_honest, directory, NETWORK, SESSION)
        await trio.testing.wait_all_tasks_blocked()
        yield lists
        nursery.cancel_scope.cancel()


def peer_brings(node: Node, lists: Lists, number: int) -> None:
    assert not node.take(signed(number))
    lists.expect(NETWORK)


async def test_directory_that_shows_a_list_a_little_later_than_a_peer_is_not_told_of(
    autojump_clock: trio.testing.MockClock,
) -> None:
    node, directory = make(1, 1)
    async with connected(node, directory) as lists:
        peer_brings(node, lists, 2)
        await trio.sleep(SHOWN_SECONDS / 2)
        await lists.take_change(directory, NETWORK, change(1, 2), SESSION)
        await trio.sleep(SHOWN_SECONDS * 2)
        peer_brings(node, lists, 3)
        await lists.take_whole(NETWORK, signed(3))
        await trio.sleep(SHOWN_SECONDS * 2)
    assert (node.alarms, directory.given) == ([], [])


async def test_change_that_skips_what_a_peer_brought_is_asked_for_whole(
    autojump_clock: trio.testing.MockClock,
) -> None:
    node, directory = make(1, 1)
    async with connected(node, directory) as lists:
        peer_brings(node, lists, 2)
        directory.number = 3
        await lists.take_change(directory, NETWORK, change(1, 3), SESSION)
        assert node.number == 3
        await trio.sleep(SHOWN_SECONDS * 2)
    assert node.alarms == []


async def test_directory_that_withholds_a_list_is_told_of_and_given_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    node, directory = make(1, 1)
    async with connected(node, directory) as lists:
        peer_brings(node, lists, 2)
        await trio.sleep(SHOWN_SECONDS + 1)
        assert node.alarms == [ListProblem.WITHHELD.value]
        assert directory.given == [signed(2)]
        await trio.sleep(SHOWN_SECONDS * 5)
        assert len(node.alarms) == 1  # once
        peer_brings(node, lists, 3)
        directory.number = 3  # it has it, and shows it only when it is asked
        await trio.sleep(SHOWN_SECONDS + 1)
    assert len(node.alarms) == 1


async def test_directory_that_says_that_it_knows_whatever_we_have_is_told_of(
    autojump_clock: trio.testing.MockClock,
) -> None:
    node, directory = make(1, 1)
    directory.says_known = True
    lists = Lists(lambda _: node.network, node)
    await lists.compare(directory, NETWORK)
    peer_brings(node, lists, 2)
    for _ in range(10):  # and closes before the time is over, again and again
        with trio.move_on_after(SHOWN_SECONDS / 2):
            await lists.compare(directory, NETWORK)
            assert lists.stated(NETWORK) in (digest_of(1), digest_of(2))
            await lists.keep_honest(directory, NETWORK, SESSION)
    assert node.alarms == [ListProblem.WITHHELD.value]
    assert directory.given == [signed(2)]
    assert lists.stated(NETWORK) == digest_of(2)


def digest_of(number: int) -> bytes:
    return open_list(signed(number), KEY.public, NOW).digest


async def test_list_that_came_while_no_directory_was_there_is_compared_and_is_no_fault(
    autojump_clock: trio.testing.MockClock,
) -> None:
    node, directory = make(1, 2)
    lists = Lists(lambda _: node.network, node)
    peer_brings(node, lists, 2)
    async with trio.open_nursery() as nursery:
        await lists.compare(directory, NETWORK)
        nursery.start_soon(lists.keep_honest, directory, NETWORK, SESSION)
        await trio.sleep(SHOWN_SECONDS * 2)
        nursery.cancel_scope.cancel()
    assert node.alarms == []


async def test_directory_that_goes_away_meanwhile_ends_the_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    node, directory = make(1, 1)
    with pytest.RaisesGroup(PeerUnreachable, flatten_subgroups=True):
        async with connected(node, directory) as lists:
            peer_brings(node, lists, 2)
            directory.is_away = True
            await trio.sleep(SHOWN_SECONDS * 2)


async def test_change_of_a_list_that_this_node_never_said_to_have_is_told_of() -> None:
    node, directory = make(2, 3)
    lists = Lists(lambda _: node.network, node)
    await lists.take_change(directory, NETWORK, change(1, 3), SESSION)
    assert len(node.alarms) == 1
    assert node.number == 3  # the whole of it was asked for, and verified


async def test_list_that_directory_and_peer_bring_at_one_moment_is_nobodys_fault(
    autojump_clock: trio.testing.MockClock,
) -> None:
    node, directory = make(1, 2)
    async with connected(node, directory) as lists:
        assert node.number == 1  # it is shown to members, who have logged in
        await lists.take_whole(NETWORK, signed(2))  # the directory was first by a moment
        lists.expect(NETWORK)
        await trio.sleep(SHOWN_SECONDS * 2)
    assert node.alarms == []
