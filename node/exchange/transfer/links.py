"""What transfers need of the network: links to peers."""

from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from node.documents.messages import Message
from node.domain.capabilities import Capability
from node.domain.connections import Route
from node.domain.ids import FacilityId


class Link(Protocol):
    """One transfer's stream to a peer whose identity was checked, whoever dialled."""

    @property
    def peer(self) -> FacilityId:
        """The facility at the other end."""

    @property
    def route(self) -> Route:
        """How it is reached."""

    @property
    def capabilities(self) -> Collection[Capability]:
        """The capabilities that the other end stated last."""

    async def send(self, message: Message) -> None:
        """Send a message; waits while the other side is slow.

        Raises:
            PeerError: the link broke, or the peer is trusted no longer.
        """

    async def receive(self) -> Message | None:
        """Return the next message; None when the other side has ended the stream.

        Raises:
            PeerError: the link broke, made no progress in time, or the peer is trusted
                no longer.
            RemoteProtocolError: the bytes are not a valid message.
        """


class Links(Protocol):
    """Makes links to peers that can be dialled."""

    def is_connected(self, peer: FacilityId) -> bool:
        """Return whether we have a connection to the peer that we dialled."""

    def further_connections(self, peer: FacilityId) -> int:
        """Return how many connections to the peer there are beside the first, on a long line."""

    def carry(self, peer: FacilityId) -> AbstractAsyncContextManager[Link]:
        """Open a link for the time of the block, over the connection that has the fewest.

        Raises:
            PeerUnreachable: nobody answers.
            PeerUntrusted: it is not paired, or was removed.
        """
