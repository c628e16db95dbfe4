"""Keeping a node's and a directory's list in step, whichever is the newer.

Who has the newest is sent nothing; who has one of the last few is sent what makes the newest of it.
A directory that has gone back, or has lost what it knew, is given ours.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import structlog
from emix.directory.v1 import directory_pb2 as pb

from node.documents.lists import apply_change, open_list
from node.documents.network import Network
from node.domain.ids import NetworkId
from node.errors import DocumentError, NodeError
from node.rpc.calling import Channel
from node.rpc.methods import method

log = structlog.get_logger()
_SERVICE = pb.DESCRIPTOR.services_by_name["DirectoryService"]
_GET_NETWORK = method(_SERVICE, "GetNetwork", pb.GetNetworkRequest, pb.GetNetworkResponse)
_PUBLISH = method(_SERVICE, "Publish", pb.PublishRequest, pb.PublishResponse)
_CALL_SECONDS = 10.0


class ListNews(Protocol):
    """Takes lists that directories show."""

    async def took_list(self, network_id: NetworkId, encoded: bytes) -> None:
        """Take a list; it is not verified yet."""

    async def was_fooled(self, network_id: NetworkId, problem: str) -> None:
        """Note that a directory showed what is not signed by whom it should be."""


class Lists:
    """The lists of this node's networks, as its directories are told of them."""

    def __init__(self, network: Callable[[NetworkId], Network | None], news: ListNews) -> None:
        """Prepare; `network` returns one as it is known now."""
        self._network = network
        self._news = news

    def known(self, network_id: NetworkId) -> bytes:
        """Return the digest that names the newest list known here; empty for none."""
        network = self._network(network_id)
        latest = network.view.latest if network else None
        return latest.digest if latest else b""

    async def compare(self, channel: Channel, network_id: NetworkId) -> bytes:
        """Take a directory's list if it is newer; give it ours if that is.

        Returns:
            A challenge for the login, which came with the list; empty if none did.

        Raises:
            NodeError: the directory does not answer.
        """
        shown = await _shown(channel, self.known(network_id))
        if shown.list_change:
            await self.take_change(channel, network_id, shown.list_change)
        elif not shown.list_is_known:
            await self._compare_whole(channel, network_id, shown)
        return shown.challenge

    async def _compare_whole(
        self, channel: Channel, network_id: NetworkId, shown: pb.GetNetworkResponse
    ) -> None:
        if shown.list:
            await self._news.took_list(network_id, shown.list)
        network = self._network(network_id)
        if network is None or network.signed_list in (b"", shown.list):
            return
        with suppress(NodeError):  # it has a newer one by now, or one that we do not believe
            given = pb.PublishRequest(list=network.signed_list)
            await channel.unary(_PUBLISH, given, timeout=_CALL_SECONDS)
            log.info("list given back", network=network_id.short())

    async def take_change(self, channel: Channel, network_id: NetworkId, change: bytes) -> None:
        """Take a list as a change of the one that is known; ask for the whole if it is none.

        Raises:
            NodeError: the directory does not answer.
        """
        network = self._network(network_id)
        if network is None:
            return  # it was left just now
        try:
            encoded = _changed(network, change)
        except DocumentError as exc:
            problem = f"a change of the list that does not verify: {exc}"
            await self._news.was_fooled(network_id, problem)
            encoded = (await _shown(channel, b"")).list
        if encoded:
            await self._news.took_list(network_id, encoded)


async def _shown(channel: Channel, known: bytes) -> pb.GetNetworkResponse:
    request = pb.GetNetworkRequest(known_list=known)
    return await channel.unary(_GET_NETWORK, request, timeout=_CALL_SECONDS)


def _changed(network: Network, change: bytes) -> bytes:
    """Return the verified list that a change makes of the one that is known.

    Raises:
        DocumentError: it makes none of it.
    """
    if network.view.latest is None:
        raise DocumentError("a change of a list where none is known")
    encoded = apply_change(network.view.latest, change)
    open_list(encoded, network.network_key, time.time())
    return encoded
