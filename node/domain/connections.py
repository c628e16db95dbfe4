"""How peers are reached, as values: states of a connection, and routes."""

import enum
from dataclasses import dataclass


class ConnectionState(enum.StrEnum):
    """How the way to a peer, or to a directory, stands."""

    WAITING = "waiting"
    """It is not connected, and nothing says why: it was not tried, or ended in its time."""

    CONNECTED = "connected"
    UNREACHABLE = "unreachable"
    """The last try failed; `problem` says why."""


class Route(enum.StrEnum):
    """By which way a peer is reached."""

    LAN = "lan"
    """Directly, at an address that it announces on the own network."""

    DIRECT = "direct"
    """Directly, at an address that it states."""

    DIAL_BACK = "dial-back"
    """Over a connection that it made, because we cannot dial it."""

    RELAY = "relay"
    """Through a network's relay."""


@dataclass(frozen=True, slots=True)
class PeerWay:
    """What is known now of the way to a peer.

    Attributes:
        route: The present or last route; None before the first connection.
        endpoint: The peer's address; empty if it is not known.
        round_trip_seconds: The round-trip time; 0 if it is not known.
        problem: Why there is no connection; empty while there is one.
        software: Its software, as it states.
        is_connected: Whether either side has a connection to the other.
    """

    state: ConnectionState = ConnectionState.WAITING
    route: Route | None = None
    endpoint: str = ""
    round_trip_seconds: float = 0.0
    problem: str = ""
    software: str = ""
    is_connected: bool = False
