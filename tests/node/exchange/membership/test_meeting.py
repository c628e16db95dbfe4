"""Pairing by an ID alone: at an address, near by, shown by itself, or through a directory."""

from types import SimpleNamespace
from typing import Any

import pytest

from node.domain.ids import FacilityId
from node.errors import BadSignature, NotFound, PeerUnreachable, UsageError
from node.exchange.membership.meeting import Meeting
from node.exchange.membership.pairing import HowToPair
from tests.support.actors import actor

WHO, ALICE, HOW = FacilityId(b"w" * 32), actor("alice"), HowToPair()


class Pairing:
    """Pairs where the facility is, and notes where it looked."""

    def __init__(self, answers: dict[str, Any], asking: Any = None) -> None:
        self._answers = answers
        self.looked: list[str] = []
        self.strangers = SimpleNamespace(identity=lambda _: asking)

    async def pair_by_id(self, _: FacilityId, at: str, **more: Any) -> str:
        self.looked.append(at)
        answer = self._answers[at]
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    async def pair_by_identity(self, identity: Any, name: str, **more: Any) -> tuple[str, str]:
        return identity.who, name


class Networks:
    """One network whose directory may know the facility."""

    def __init__(self, found: Any = None, *, is_in_one: bool = True) -> None:
        self._found, self._is_in_one = found, is_in_one

    def all(self) -> list[str]:
        return ["network"] if self._is_in_one else []

    async def lookup(self, _: FacilityId) -> Any:
        if self._found is None:
            raise NotFound("no directory shows it")
        return self._found


def listed(who: str, order: int) -> Any:
    identity = SimpleNamespace(who=who, order=order)
    invitation = SimpleNamespace(display_name="Helena")
    membership = SimpleNamespace(invitation=invitation)
    return SimpleNamespace(record=SimpleNamespace(identity=identity, membership=membership))


def meeting(pairing: Pairing, networks: Networks, *near: str) -> Any:
    found: Any = SimpleNamespace(introductions=lambda _: near)
    return Meeting(pairing, networks, found)  # type: ignore[arg-type]


async def test_address_that_a_person_gave_is_the_only_one_asked() -> None:
    pairing = Pairing({"there": PeerUnreachable("silent"), "near": "paired"})
    with pytest.raises(PeerUnreachable):
        await meeting(pairing, Networks(), "near").pair(WHO, "there", actor=ALICE, how=HOW)
    assert pairing.looked == ["there"]


async def test_whoever_is_near_may_lie_and_the_next_is_asked() -> None:
    pairing = Pairing({"1": BadSignature("another"), "2": PeerUnreachable("silent"), "3": "paired"})
    found = await meeting(pairing, Networks(), "1", "2", "3").pair(WHO, "", actor=ALICE, how=HOW)
    assert (found, pairing.looked) == ("paired", ["1", "2", "3"])


@pytest.mark.parametrize(("order", "who"), [(1, "shown"), (3, "listed")])
async def test_newest_of_what_is_shown_and_listed_is_pinned(order: int, who: str) -> None:
    asking = SimpleNamespace(who="shown", order=2)
    networks = Networks(listed("listed", order))
    found: Any = await meeting(Pairing({}, asking), networks).pair(WHO, "", actor=ALICE, how=HOW)
    assert found == (who, "Helena")


async def test_what_it_has_shown_itself_stands_where_no_directory_knows_it() -> None:
    asking = SimpleNamespace(who="shown", order=2)
    found: Any = await meeting(Pairing({}, asking), Networks()).pair(WHO, "", actor=ALICE, how=HOW)
    assert found == ("shown", "")


async def test_nobody_knows_where_it_is() -> None:
    with pytest.raises(NotFound):
        await meeting(Pairing({}), Networks()).pair(WHO, "", actor=ALICE, how=HOW)
    with pytest.raises(UsageError, match="--at HOST:PORT"):
        await meeting(Pairing({}), Networks(is_in_one=False)).pair(WHO, "", actor=ALICE, how=HOW)
