"""A stranger sends messages that are large, or that grow when they are parsed."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from emix.directory.v1 import directory_pb2 as dpb
from emix.introduction.v1 import introduction_pb2 as pb

from node.rpc.bounds import SMALL
from node.rpc.methods import methods
from tests.integration.attacks.messages import (
    MIB,
    MOST_MIB,
    ask,
    flood,
    high_water,
    stranger,
    swollen,
    within,
)
from tests.support.nodes import Directory, Node

pytestmark = pytest.mark.integration
_PRESENT = "/emix.introduction.v1.IntroductionService/Present"
_DIRECTORY = "/emix.directory.v1.DirectoryService"
_INTRODUCTION = pb.DESCRIPTOR.services_by_name["IntroductionService"]
_SESSIONLESS = {"GetNetwork", "GetChallenge", "Login", "Join", "Publish", "ListMemberships"}


# Each test has processes of its own: calls of an address are counted.
@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path, "node", "Great Falls Clinic")
    node.make()
    node.start()
    yield node
    assert node.stop() == 0


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Directory]:
    directory = Directory(tmp_path)
    directory.make()
    settings = directory.home / "directory.toml"
    text = settings.read_text()
    assert "\n# strangers_a_minute" in text
    settings.write_text(re.sub(r"# (strangers_a_minute) = \d+", r"\1 = 100000", text))
    directory.start()
    yield directory
    assert directory.stop() == 0


@pytest.mark.parametrize("size", [4 * MIB - 1024, 60 * 1024])
def test_messages_to_the_introduction_service_cost_little_memory(node: Node, size: int) -> None:
    assert node.process is not None
    body = swollen(2, size)  # memberships
    with stranger(node.addresses["introduction"]) as channel:
        flood(channel, _PRESENT, b"", 1)
        before = high_water(node.process.pid)
        ended = flood(channel, _PRESENT, body, 60)
    assert "OK" not in ended
    assert high_water(node.process.pid) - before < MOST_MIB
    node.run("status")


@pytest.mark.parametrize(("size", "calls"), [(4 * MIB - 1024, 40), (60 * 1024, 1000)])
@pytest.mark.parametrize(
    ("rpc", "body"),
    [("Lookup", lambda size: swollen(1, size)), ("Login", lambda size: within(1, b"a" * size))],
)
def test_messages_to_a_directory_without_a_session_cost_little_memory(
    directory: Directory, rpc: str, body: Callable[[int], bytes], size: int, calls: int
) -> None:
    assert directory.process is not None
    with stranger(directory.address, is_directory=True) as channel:
        flood(channel, f"{_DIRECTORY}/{rpc}", b"", 1)
        before = high_water(directory.process.pid)
        ended = flood(channel, f"{_DIRECTORY}/{rpc}", body(size), calls)
    assert "OK" not in ended
    assert high_water(directory.process.pid) - before < MOST_MIB
    directory.run("status")


def test_lists_that_anybody_brings_piece_by_piece_cost_little_memory(directory: Directory) -> None:
    assert directory.process is not None
    piece = within(1, b"x" * 32 * 1024)
    with stranger(directory.address, is_directory=True) as channel:
        flood(channel, f"{_DIRECTORY}/Publish", b"", 1)
        before = high_water(directory.process.pid)
        publish = channel.stream_unary(f"{_DIRECTORY}/Publish")
        running = [publish.future(iter([piece] * 1000), timeout=60) for _ in range(20)]
        assert all(one.exception() is not None for one in running)
    assert high_water(directory.process.pid) - before < MOST_MIB


def test_directory_asks_who_calls_before_it_parses(directory: Directory) -> None:
    """A body that is no protobuf is refused for the missing session, not for its form."""
    service = dpb.DESCRIPTOR.services_by_name["DirectoryService"]
    with stranger(directory.address, is_directory=True) as channel:
        found = {m.name: ask(channel, m.path, b"\xff") for m in methods(service)}
    for name, answer in found.items():
        if name in _SESSIONLESS:
            assert answer == ("INVALID_ARGUMENT", f"the message is not a valid {name}Request")
        else:
            assert answer == ("PERMISSION_DENIED", "the session is not of this directory; log in")


def test_no_door_for_strangers_takes_more_than_a_small_message(
    node: Node, directory: Directory
) -> None:
    body = b"\x7a" + b"\x00" * SMALL.size
    with stranger(node.addresses["introduction"]) as channel:
        found = [ask(channel, m.path, body) for m in methods(_INTRODUCTION)]
    service = dpb.DESCRIPTOR.services_by_name["DirectoryService"]
    with stranger(directory.address, is_directory=True) as channel:
        found += [ask(channel, m.path, body) for m in methods(service) if m.name in _SESSIONLESS]
    assert all(status == "RESOURCE_EXHAUSTED" for status, _ in found), found
    assert all("larger than max" in details for _, details in found), found
