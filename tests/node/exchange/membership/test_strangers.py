"""Who asks to be paired with is remembered: a few, for a day, whatever else comes."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from node.domain.ids import FacilityId
from node.exchange.membership.strangers import MOST, Strangers

DAY = 86400.0


class Named:
    """As much of an identity as is looked at."""

    def __init__(self, name: int, order: int = 0) -> None:
        self.facility_id = FacilityId(bytes([name]) * 32)
        self.order = (order, 0, 0)


def names(strangers: Strangers) -> list[int]:
    return [s.identity.facility_id.digest[0] for s in strangers.all()]


@given(st.lists(st.integers(0, 20)))
def test_the_last_few_are_remembered_each_once(came: list[int]) -> None:
    strangers = Strangers(lambda: 0.0)
    for name in came:
        named: Any = Named(name)
        strangers.note(named)
    newest = list(dict.fromkeys(reversed(came)))
    assert names(strangers) == newest[:MOST]


def test_who_does_not_ask_for_a_day_is_forgotten() -> None:
    now = 0.0
    strangers = Strangers(lambda: now)
    for name in (1, 2):
        named: Any = Named(name)
        strangers.note(named)
        now += DAY / 2
    assert names(strangers) == [2]
    assert [s.seconds_ago for s in strangers.all()] == [DAY / 2]
    strangers.forget(FacilityId(bytes([2]) * 32))
    assert strangers.identity(FacilityId(bytes([2]) * 32)) is None


def test_what_was_shown_again_takes_the_place_of_nothing_newer() -> None:
    strangers = Strangers(lambda: 0.0)
    for order in (1, 3, 2):
        named: Any = Named(1, order)
        strangers.note(named)
    (found,) = strangers.all()
    assert found.identity.order == (3, 0, 0)
