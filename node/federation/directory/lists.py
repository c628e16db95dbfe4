"""Keeping a node's and a directory's list in step, whichever is the newer.

A directory sends nothing to a node that has the newest list, and only the change to a node that has
one of the last few. A directory that has gone back to an older list, or has lost its data, gets
ours. One that withholds a list that peers have raises an alarm.
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
"""How long a directory may take to show a list that came from a peer, before an alarm."""


class ListAuthority(Protocol):
    """Verifies lists; `node.exchange.membership.authority` implements it."""

    async def accept_list(self, network_id: NetworkId, encoded: bytes) -> bool:
        """Verify a list and accept it if it is newer; return whether it is the one known now."""

    async def report_forgery(self, network_id: NetworkId, problem: str) -> None:
        """Raise an alarm: what a directory showed has no valid signature, or contradicts itself."""


class Lists:
    """Compares the lists of this node's networks with those of the directories."""

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
        self._stated: dict[NetworkId, bytes] = {}  # what the directory knows that we have
        self._shown: dict[NetworkId, bytes] = {}  # what the directory has shown last
        self._passed: dict[NetworkId, float] = {}  # when a peer brought what it has not shown
        self._was_passed: defaultdict[NetworkId, trio.Event] = defaultdict(trio.Event)

    def known(self, network_id: NetworkId) -> bytes:
        """Return the digest that names the newest list known here; empty for none."""
        network = self._network(network_id)
        latest = network.view.latest if network else None
        return latest.digest if latest else b""

    def stated(self, network_id: NetworkId) -> bytes:
        """Return the digest of the list that a directory is told we have.

        While the directory has not shown a list that came from a peer, it is told only of the list
        that it has shown itself. Otherwise it could claim to have ours without showing it.
        """
        is_passed = network_id in self._passed
        stated = self._shown.get(network_id, b"") if is_passed else self.known(network_id)
        self._stated[network_id] = stated
        return stated

    def expect(self, network_id: NetworkId) -> None:
        """Note that the newest list came from a peer: the directory should show it, too."""
        if self._shown.get(network_id) == self.known(network_id):
            return  # it did so at the same moment
        self._passed.setdefault(network_id, trio.current_time())
        self._was_passed[network_id].set()

    async def keep_honest(
        self, channel: Channel, network_id: NetworkId, metadata: Metadata
    ) -> None:
        """Detect a withheld list, for the time of the session that `metadata` names."""
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
        """Accept the directory's list if it is newer; give it ours if ours is newer.

        Before the login, a directory shows only the change of our list, and its whole list only if
        that revokes our membership.

        Returns:
            The challenge for the login that came with the answer; empty if there is none.

        Raises:
            NodeError: the directory does not answer.
        """
        stated = self.stated(network_id)
        shown = await self._ask(channel, network_id, stated, metadata)
        if shown.list_change:
            await self.take_change(channel, network_id, shown.list_change, metadata)
        elif shown.list_is_known:
            self._shown[network_id] = stated
        elif shown.list:
            await self.take_whole(network_id, shown.list)
        else:
            await self._compare_places(channel, network_id, (shown.list_epoch, shown.list_number))
        await self._report_withheld(channel, network_id)
        return shown.challenge

    async def _report_withheld(self, channel: Channel, network_id: NetworkId) -> None:
        """Report a directory that has not shown a peer's list in time, and give it that list."""
        passed = self._passed.get(network_id)
        if passed is not None and trio.current_time() >= passed + SHOWN_SECONDS:
            await self._authority.report_forgery(network_id, ListProblem.WITHHELD.value)
            await self._give(channel, network_id)
            self._passed.pop(network_id, None)

    async def _compare_places(
        self, channel: Channel, network_id: NetworkId, theirs: ListPlace
    ) -> None:
        """Give a directory our list if it is newer than the directory's.

        If the directory's is newer, it shows it after the login, when it knows that we are a
        member: only members may see the list.
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
            self._shown[network_id] = self.stated(network_id)

    async def take_change(
        self, channel: Channel, network_id: NetworkId, change: bytes, metadata: Metadata = ()
    ) -> None:
        """Process a change of the known list; ask for the whole list if it does not apply.

        Args:
            channel: The channel to the directory.
            network_id: The network.
            change: The change that the directory shows.
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
        """Return the verified list that results from applying a change to the known list.

        If a peer's list has replaced the base meanwhile, return the known list if the change leads
        to it, else nothing.

        Raises:
            DocumentError: the change does not apply to the known list, or the result is invalid.
        """
        latest = network.view.latest
        if latest is None:
            raise DocumentError("the change is of a list, and none is known here")
        base = base_of(change)
        if base != latest.digest and base == self._stated.get(network.id):
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
