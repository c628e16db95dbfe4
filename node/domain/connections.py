"""How peers are reached, as values: states of a connection, and routes."""

import enum


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
