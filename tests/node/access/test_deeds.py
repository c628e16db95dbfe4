"""Who may do what: nothing without a role, and no method without a deed."""

import enum
from types import SimpleNamespace
from typing import Any

import pytest
from emix.admin.v1 import admin_pb2 as pb

from node.access import deeds
from node.access.deeds import Deed, check
from node.admin.deeds import DEEDS, allowing
from node.domain.actors import NODE, Actor, Door, Role, Visitor, at_home
from node.errors import Denied

METHODS = {
    f"{service.full_name}/{method.name}"
    for service in pb.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


def test_every_method_of_the_admin_services_has_a_deed_and_nothing_else_has() -> None:
    assert set(DEEDS) == METHODS
    assert set(DEEDS.values()) == set(Deed)


@pytest.mark.parametrize("deed", Deed)
def test_without_a_role_nothing_is_allowed(deed: Deed) -> None:
    with pytest.raises(Denied, match="your role here"):
        check(Actor(Door.ADMIN, "somebody").roles, deed)
    for actor in (NODE, at_home("alice"), Visitor(0, "root", 1).actor("alice")):
        check(actor.roles, deed)


def test_what_a_client_says_of_itself_gives_no_role() -> None:
    assert Visitor(5, "x", 1).actor("node").roles == frozenset({Role.ADMIN})


def test_every_role_is_in_the_table() -> None:
    assert set(deeds.ALLOWED) == set(Role)


class Radiologist(enum.StrEnum):
    """A role that may see studies, and no more."""

    ROLE = "radiologist"


async def test_method_that_nobody_has_said_anything_of_is_denied_to_everybody() -> None:
    visitor: Any = SimpleNamespace(roles=set(Role))

    async def door(_: Any) -> Any:
        return visitor

    for path in ("/emix.admin.v1.StudyService/PurgeEverything", "/other.Service/Do", ""):
        call: Any = SimpleNamespace(method=SimpleNamespace(path=path))
        with pytest.raises(Denied, match="has no deed"):
            await allowing(door)(call)


@pytest.mark.parametrize("path", sorted(METHODS | {"grpc.health.v1.Health/Check"}))
async def test_guard_lets_a_role_do_what_it_may_and_no_more(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    role: Any = Radiologist.ROLE
    monkeypatch.setattr(deeds, "ALLOWED", {role: {Deed.SEE_STUDIES, Deed.SEE_NODE}})
    visitor: Any = SimpleNamespace(roles={role})

    async def door(_: Any) -> Any:
        return visitor

    call: Any = SimpleNamespace(method=SimpleNamespace(path=f"/{path}"))
    if DEEDS.get(path, Deed.SEE_NODE) in (Deed.SEE_STUDIES, Deed.SEE_NODE):
        assert await allowing(door)(call) is visitor
    else:
        with pytest.raises(Denied):
            await allowing(door)(call)
