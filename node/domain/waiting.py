"""Why a transfer waits, in words: from its recorded reason and the state of the way to its peer.

The recorded reason says why the last try ended. If nothing was tried (the peer was not reachable,
or it is not the transfer's turn), the state of the way says why.
"""

from dataclasses import dataclass

from node.domain.transfers import Direction, State, Transfer


@dataclass(frozen=True, slots=True)
class WayToPeer:
    """What is known now of the way to a transfer's peer.

    Attributes:
        is_removed: A person removed the peer here.
        distrusted: Why the peer is not trusted; empty if it is.
        is_connected: Whether either side has a connection to the other.
        problem: Why there is none.
        is_carried: Whether the transfer is on a link at this moment.
        is_yielding: Whether more urgent ones to the same peer go first.
    """

    is_removed: bool = False
    distrusted: str = ""
    is_connected: bool = False
    problem: str = ""
    is_carried: bool = False
    is_yielding: bool = False


def why_waiting(row: Transfer, way: WayToPeer) -> str:
    """Return why a transfer does not move, and what can be done; empty for one that moves."""
    if row.state.is_final:
        return row.reason
    if way.is_removed:
        return (
            "this facility was removed here: accept it again with `emix peers pair"
            f" --restore-removed`, or `emix cancel {row.name}`"
        )
    if way.distrusted:
        return f"{way.distrusted}. {HOW_TO_TRUST}"
    if row.direction is Direction.SEND:
        return _why_not_sent(row, way)
    return _why_not_received(row, way)


HOW_TO_TRUST = (
    'Pair with it, here and there (`emix peers pair FACILITY-ID`), or set trust = "network" in'
    " [federation] of emix.toml on both sides"
)
"""What to do about a facility that is known and not trusted."""


def advice_on(problem: str) -> str:
    """Return a problem of the way to a peer, with what to do about it and on which side."""
    if "not paired with this facility" in problem:
        return f"{problem}: the other side has to pair with this one (there: `emix peers pair`)"
    return problem


def _why_not_sent(row: Transfer, way: WayToPeer) -> str:
    if row.state is State.HELD:
        return row.reason or "a person at the receiver decides"
    if way.is_carried:
        return "more urgent ones go first" if way.is_yielding else row.reason
    if not way.is_connected:
        problem = row.reason or way.problem
        if not problem:
            return "the receiver is not connected yet; it goes on by itself"
        return f"{advice_on(problem)}; it goes on by itself"
    return row.reason or "it waits for its turn: others to this facility go first"


def _why_not_received(row: Transfer, way: WayToPeer) -> str:
    if row.state is State.HELD and not row.accepted:
        return f"a person here decides: `emix accept {row.name}`, `emix decline {row.name}`"
    if way.is_carried:
        return ""
    if row.reason:
        return row.reason
    if way.is_connected:
        return "waits for the sender to continue"
    return "the sender is not connected; the transfer continues when it is"
