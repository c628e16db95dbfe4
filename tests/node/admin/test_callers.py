"""Who asks is whom the door has identified; what the client says of itself is only noted."""

import os
from collections.abc import Mapping
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
from emix.admin.v1 import admin_pb2 as pb

from node.admin.callers import actor_of, may_name_paths
from node.domain.actors import Actor, Door, Role, Visitor
from tests.support.admin_services import AdminCall

OTHER = os.geteuid() + 61_234


def call_of(visitor: Any, metadata: Mapping[str, str] = MappingProxyType({})) -> Any:
    return SimpleNamespace(caller=visitor, metadata=metadata)


def test_actor_is_the_kernels_user_with_what_the_client_says_beside_it() -> None:
    said = {"emix-operator": "Dr. Bob"}
    found = actor_of(call_of(Visitor(5, "alice", 1), said))
    assert found == Actor(Door.ADMIN, "uid 5 (alice), says: Dr. Bob", frozenset({Role.ADMIN}))


def test_client_that_says_nothing_of_itself_is_still_recorded_as_its_user() -> None:
    assert actor_of(call_of(Visitor(5, "alice", 1))).text == "uid 5 (alice)"
    assert actor_of(call_of(Visitor(5, "alice", 1), {"operator": "bob"})).text == "uid 5 (alice)"


def test_client_cannot_write_as_it_likes_into_the_text_of_its_actor() -> None:
    said = {"emix-operator": "\x1b[2J\nuid 0 (root)" + "x" * 100}
    found = actor_of(call_of(Visitor(5, "alice", 1), said))
    assert found.text.startswith("uid 5 (alice), says: ?[2J?uid 0 (root)xx")
    assert len(found.text) == len("uid 5 (alice), says: ") + 64


@pytest.mark.parametrize(
    ("uid", "may"), [(0, True), (os.geteuid(), True), (OTHER, os.geteuid() == OTHER)]
)
def test_paths_are_opened_for_root_and_the_nodes_own_user_alone(uid: int, may: bool) -> None:
    call: Any = AdminCall(pb.ImportRequest(), uid=uid)
    assert may_name_paths(call) is may


def test_what_the_client_says_opens_no_paths() -> None:
    call: Any = SimpleNamespace(
        caller=Visitor(OTHER, "root", 1), metadata={"emix-operator": "root", "uid": "0"}
    )
    assert not may_name_paths(call)


@pytest.mark.parametrize("caller", [None, "alice", SimpleNamespace(uid=0, name="root", pid=1)])
@pytest.mark.parametrize("ask", [actor_of, may_name_paths])
def test_call_that_no_door_has_identified_is_answered_by_nobody(ask: Any, caller: Any) -> None:
    """A service with another guard is a defect: no role is made up for its callers."""
    with pytest.raises(TypeError, match="need the door's guard"):
        ask(call_of(caller))
