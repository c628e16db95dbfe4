"""Every transfer that waits says why, on both sides."""

from dataclasses import replace

import pytest

from node.domain.transfers import Direction, State, Transfer
from node.domain.waiting import WayToPeer, why_waiting
from tests.node.exchange.transfer.test_transfers import make_row

SENDING = make_row(state=State.PENDING)
COMING = replace(SENDING, direction=Direction.RECEIVE, state=State.CARRYING)
CONNECTED = WayToPeer(is_connected=True)
REFUSED = WayToPeer(problem="nothing listens there (connection refused)")
UNKNOWN_THERE = WayToPeer(problem="not paired with this facility")


@pytest.mark.parametrize("row", [SENDING, COMING], ids=["send", "receive"])
@pytest.mark.parametrize("way", [WayToPeer(), CONNECTED, REFUSED, UNKNOWN_THERE])
@pytest.mark.parametrize("state", [s for s in State if not s.is_final])
def test_whatever_waits_says_why(row: Transfer, way: WayToPeer, state: State) -> None:
    assert why_waiting(replace(row, state=state), way)


@pytest.mark.parametrize("row", [SENDING, COMING], ids=["send", "receive"])
def test_what_moves_or_has_ended_says_nothing_of_its_own(row: Transfer) -> None:
    moving = replace(row, state=State.CARRYING, reason="")
    assert why_waiting(moving, replace(CONNECTED, is_carried=True)) == ""
    for state in (s for s in State if s.is_final):
        assert why_waiting(replace(row, state=state, reason="as said"), REFUSED) == "as said"


def test_reason_says_what_to_do_and_on_which_side() -> None:
    there = why_waiting(SENDING, UNKNOWN_THERE)
    assert "the other side has to pair with this one (there: `emix peers pair`)" in there
    untrusted = why_waiting(SENDING, WayToPeer(distrusted="it is provisional"))
    assert untrusted.startswith("it is provisional. Pair with it, here and there")
    removed = why_waiting(SENDING, WayToPeer(is_removed=True))
    assert "--restore-removed" in removed
    assert f"emix cancel {SENDING.name}" in removed
    held = why_waiting(replace(COMING, state=State.HELD), CONNECTED)
    assert held == f"a person here decides: `emix accept {COMING.name}`, " + (
        f"`emix decline {COMING.name}`"
    )


def test_what_the_last_try_came_to_goes_before_what_is_guessed() -> None:
    full = replace(SENDING, reason="no room on the receiver's disk; again in 60 s")
    assert why_waiting(full, CONNECTED) == full.reason
    assert why_waiting(full, REFUSED) == f"{full.reason}; it goes on by itself"
    yielding = replace(CONNECTED, is_carried=True, is_yielding=True)
    assert why_waiting(SENDING, yielding) == "more urgent ones go first"
