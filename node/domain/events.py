"""Events that concern more than one part of a node.

The part that causes an event publishes it; `node.exchange.events` has the subscribers.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from node.domain.ids import FacilityId, NetworkId, PackageId
from node.domain.packages import Closing


class Event:
    """Something that has happened."""


@dataclass(frozen=True, slots=True)
class PinsChanged(Event):
    """A facility was pinned, renewed or removed."""


@dataclass(frozen=True, slots=True)
class NetworksChanged(Event):
    """A network was joined or left, or a newer list of one was accepted."""


@dataclass(frozen=True, slots=True)
class DialBackAsked(Event):
    """A facility that cannot dial us asks, by a directory, to be dialled.

    Attributes:
        facility: Whom; nothing is checked yet.
    """

    facility: FacilityId


@dataclass(frozen=True, slots=True)
class TicketShown(Event):
    """A directory shows our half of a relay ticket.

    Attributes:
        network: Whose directory it is.
        encoded: The ticket; nothing is verified yet.
    """

    network: NetworkId
    encoded: bytes


@dataclass(frozen=True, slots=True)
class StudyClosed(Event):
    """Packages of a study that came in through the intake are closed, durably.

    Attributes:
        packages: The closed packages; never empty.
    """

    study_instance_uid: str
    packages: tuple[PackageId, ...]
    why: Closing


Publish = Callable[[Event], Awaitable[None]]
"""Returns once everybody who subscribed to the event has acted on it."""
