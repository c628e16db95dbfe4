"""What is known of the way to one peer."""

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from node.domain.connections import ConnectionState, PeerWay, Route
from node.errors import PeerTimeout, PeerUnreachable
from node.federation.routes.race import Won
from node.rpc.calling import Channel


@dataclass
class Connection:
    """The state of the connection to one peer."""

    state: ConnectionState = ConnectionState.WAITING
    route: Route | None = None
    endpoint: str = ""
    round_trip_seconds: float = 0.0
    problem: str = ""
    software: str = ""  # as the peer says
    channel: Channel | None = field(default=None, repr=False)
    # More of them, on a long line, and what happens when one is not used any more.
    beside: dict[Channel, trio.Event] = field(default_factory=dict, repr=False)
    links: Counter[Channel] = field(default_factory=Counter, repr=False)  # how many each has
    better: Won | None = field(default=None, repr=False)  # the next way, made already
    inbound: Counter[Route] = field(default_factory=Counter)  # what the peer opened, by route
    holding: trio.CancelScope | None = field(default=None, repr=False)
    waiting_at_relay: trio.CancelScope | None = field(default=None, repr=False)
    connected_time: float = -math.inf  # when it was at last, by trio's clock
    dialled: float = -math.inf  # when it was last tried because somebody asked

    @contextmanager
    def used_beside(self, channel: Channel) -> Iterator[trio.Event]:
        """Use one more connection for the time of the block; yield what happens if it breaks."""
        self.beside[channel] = trio.Event()
        try:
            yield self.beside[channel]
        finally:
            self.beside.pop(channel, None)

    @property
    def emptiest(self) -> Channel | None:
        """The connection that has the fewest links."""
        if self.channel is None:
            return None
        return min((self.channel, *self.beside), key=lambda channel: self.links[channel])

    @contextmanager
    def linked(self, channel: Channel) -> Iterator[None]:
        """Count a link on a connection for the time of the block.

        One of several connections that breaks is not used again.
        """
        self.links[channel] += 1
        try:
            yield
        except BaseException as exc:
            if _is_of_connection(exc) and channel in self.beside:
                self.beside.pop(channel).set()
            raise
        finally:
            self.links[channel] -= 1
            self.links = +self.links

    def leave(self) -> None:
        """End the present connection, so that another is looked for."""
        if self.holding is not None:
            self.holding.cancel()

    def take_better(self) -> Won | None:
        """Return the better connection found meanwhile, if any; the caller closes it."""
        found, self.better = self.better, None
        return found

    @property
    def way(self) -> PeerWay:
        """The state to show; a connection that only the peer has opened counts, too."""
        state, route, problem = self.state, self.route, self.problem
        if self.is_inbound_only:
            state, problem = ConnectionState.CONNECTED, ""
            route = Route.DIAL_BACK if Route.DIRECT in self.inbound else Route.RELAY
        return PeerWay(
            state,
            route,
            self.endpoint,
            self.round_trip_seconds,
            problem,
            self.software,
            is_connected=self.channel is not None or bool(self.inbound),
        )

    @property
    def is_inbound_only(self) -> bool:
        """Whether the peer has a connection to us, and we none to it."""
        return self.channel is None and bool(self.inbound)


def _is_of_connection(error: BaseException) -> bool:
    """Whether an error, or one in a group, says that a connection broke."""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup((PeerUnreachable, PeerTimeout)) is not None
    return isinstance(error, PeerUnreachable | PeerTimeout)
