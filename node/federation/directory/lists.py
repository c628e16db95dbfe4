"""Keeping a node's and a directory's list in step, whichever is the newer.

Who has the newest is sent nothing; who has one of the last few is sent what makes the newest of it.
A directory that has gone back, or has lost what it knew, is given ours; one that does not show what
peers have is told of.
"""

from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import structlog
import trio
from emix.directory.v1 import directory_pb2 as pb

from node.documents.lists import MAX_LIST_BYTES, apply_change, base_of, leads_to, open_list
from node.documents.network import Network
from node.domain.ids import NetworkId
from node.domain.network import NO_LIST, ListPlace, ListProblem
from node.errors import DocumentError, NodeError
from node.rpc.bounds import Bound
from node.rpc.calling import Channel
from node.rpc.methods import method
from node.rpc.pieces import pieces
from node.system import clock

log = structlog.get_logger()
_SERVICE = pb.DESCRIPTOR.services_by_name["DirectoryService"]
LARGEST_ANSWER = MAX_LIST_BYTES + 16 * 1024
"""Of a directory: a whole list, and a little beside it."""

_GET_NETWORK = method(
    _SERVICE,
    "GetNetwork",
    pb.GetNetworkRequest,
    pb.GetNetworkResponse,
    answer=Bound(LARGEST_ANSWER),
)
_PUBLISH = method(_SERVICE, "Publish", pb.PublishRequest, pb.PublishResponse)
_CALL_SECONDS = 10.0
Metadata = tuple[tuple[str, str], ...]
SHOWN_SECONDS = 30.0
"""Within which a directory shows what peers have, or is told of."""


class ListAuthority(Protocol):
    """Judges lists; `node.exchange.membership.authority` does."""

    async def accept_list(self, network_id: NetworkId, encoded: bytes) -> bool:
        """Verify a list and accept it if it is newer; return whether it is the one known now."""

    async def report_forgery(self, network_id: NetworkId, problem: str) -> None:
        """Raise an alarm: what a directory showed has no valid signature, or contradicts itself."""


class Lists:
    """The lists of this node's networks, as its directories are told of them."""

    def __init__(
        self, network: Callable[[NetworkId], Network | None], authority: ListAuthority
    ) -> None:
        """Prepare.

        Args:
            network: Returns a network as it is known now.
            authority: Judges what a directory shows.
        """
        self._network = network
        self._authority = authority
        self._told: dict[NetworkId, bytes] = {}  # what the directory knows that we have
        self._shown: dict[NetworkId, bytes] = {}  # what the directory has shown last
        self._passed: dict[NetworkId, float] = {}  # when a peer brought what it has not shown
        self._was_passed: defaultdict[NetworkId, trio.Event] = defaultdict(trio.Event)

    def known(self, network_id: NetworkId) -> bytes:
        """Return the digest that names the newest list known here; empty for none."""
        network = self._network(network_id)
        latest = network.view.latest if network else None
        return latest.digest if latest else b""

    def tell(self, network_id: NetworkId) -> bytes:
        """Return the digest for a directory to be told of.

        While it has not shown what a peer brought, it is told of what it has shown itself: or it
        could say that it knows whatever we have.
        """
        is_passed = network_id in self._passed
        told = self._shown.get(network_id, b"") if is_passed else self.known(network_id)
        self._told[network_id] = told
        return told

    def expect(self, network_id: NetworkId) -> None:
        """Note that the newest list came from a peer: the directory should show it, too."""
        if self._shown.get(network_id) == self.known(network_id):
            return  # it did so at the same moment
        self._passed.setdefault(network_id, trio.current_time())
        self._was_passed[network_id].set()

    async def keep_honest(
        self, channel: Channel, network_id: NetworkId, metadata: Metadata
    ) -> None:
        """Notice what a directory does not show, for the time of a session that is named so."""
        while True:
            await self._was_passed[network_id].wait()
            if network_id in self._passed:
                await trio.sleep_until(self._passed[network_id] + SHOWN_SECONDS)
            if network_id in self._passed:
                await self.compare(channel, network_id, metadata)
            self._was_passed.pop(network_id, None)

    async def compare(
        self, channel: Channel, network_id: NetworkId, metadata: Metadata = ()
    ) -> bytes:
        """Take a directory's list if it is newer; give it ours if that is.

        Before the login we are shown what our list lacks, and the whole only if that revokes our
        membership.

        Returns:
            A challenge for the login, which came with the list; empty if none did.

        Raises:
            NodeError: the directory does not answer.
        """
        told = self.tell(network_id)
        shown = await self._ask(channel, network_id, told, metadata)
        if shown.list_change:
            await self.take_change(channel, network_id, shown.list_change, metadata)
        elif shown.list_is_known:
            self._shown[network_id] = told
        elif shown.list:
            await self.take_whole(network_id, shown.list)
        else:
            await self._compare_places(channel, network_id, (shown.list_epoch, shown.list_number))
        await self._report_withheld(channel, network_id)
        return shown.challenge

    async def _report_withheld(self, channel: Channel, network_id: NetworkId) -> None:
        """Tell of a directory that has had time to show what a peer brought, and give it that."""
        passed = self._passed.get(network_id)
        if passed is not None and trio.current_time() >= passed + SHOWN_SECONDS:
            await self._authority.report_forgery(network_id, ListProblem.WITHHELD.value)
            await self._give(channel, network_id)
            self._passed.pop(network_id, None)

    async def _compare_places(
        self, channel: Channel, network_id: NetworkId, theirs: ListPlace
    ) -> None:
        """Give a directory our list if that is newer; a newer one of its own it shows later.

        It knows then whether we are a member, and who else is, is nobody else's concern.
        """
        network = self._network(network_id)
        if network is None or theirs >= network.view.place:
            return
        if theirs != NO_LIST and network_id not in self._passed:
            await self._authority.report_forgery(network_id, ListProblem.OLDER.value)
        await self._give(channel, network_id)

    async def _give(self, channel: Channel, network_id: NetworkId) -> None:
        network = self._network(network_id)
        if network is None:
            return  # it was left just now
        with suppress(NodeError):  # it has a newer one by now, or one that we do not believe
            given = [pb.PublishRequest(list=piece) for piece in pieces(network.signed_list)]
            await channel.bring(_PUBLISH, given, timeout=_CALL_SECONDS)
            log.info("list given", network=network_id.short())

    async def take_whole(self, network_id: NetworkId, encoded: bytes) -> None:
        """Take a list that a directory shows."""
        if await self._authority.accept_list(network_id, encoded):
            self._passed.pop(network_id, None)
            self._shown[network_id] = self.tell(network_id)

    async def take_change(
        self, channel: Channel, network_id: NetworkId, change: bytes, metadata: Metadata = ()
    ) -> None:
        """Take a list as a change of the one that is known; ask for the whole if it is none.

        Args:
            channel: To the directory.
            network_id: Whose list it is.
            change: What the directory shows.
            metadata: Names our session.

        Raises:
            NodeError: the directory does not answer.
        """
        network = self._network(network_id)
        if network is None:
            return  # it was left just now
        try:
            encoded = self._changed(network, change)
        except DocumentError as exc:
            problem = f"a change of the list that does not verify: {exc}"
            await self._authority.report_forgery(network_id, problem)
            encoded = b""
        if not encoded:
            encoded = (await self._ask(channel, network_id, b"", metadata)).list
        if encoded:
            await self.take_whole(network_id, encoded)

    def _changed(self, network: Network, change: bytes) -> bytes:
        """Return the verified list that a change makes of the one that is known.

        Returns:
            Nothing if it is of an earlier one than a peer has brought meanwhile.

        Raises:
            DocumentError: it makes none of it.
        """
        latest = network.view.latest
        if latest is None:
            raise DocumentError("the change is of a list, and none is known here")
        base = base_of(change)
        if base != latest.digest and base == self._told.get(network.id):
            return network.signed_list if leads_to(change, network.signed_list) else b""
        encoded = apply_change(latest, change)
        open_list(encoded, network.network_key, clock.now())
        return encoded

    async def _ask(
        self, channel: Channel, network_id: NetworkId, known: bytes, metadata: Metadata
    ) -> pb.GetNetworkResponse:
        network = self._network(network_id)
        membership = network.membership.encoded if network else b""
        request = pb.GetNetworkRequest(known_list=known, membership=membership)
        return await channel.unary(_GET_NETWORK, request, timeout=_CALL_SECONDS, metadata=metadata)
