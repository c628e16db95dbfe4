"""Pairing with a facility by its ID: found at an address, on the LAN, or in a directory."""

from collections.abc import Sequence
from typing import Protocol

from node.documents.identity import Identity
from node.documents.peers import Peer
from node.domain.actors import Actor
from node.domain.ids import FacilityId
from node.errors import DocumentError, NodeError, PeerError, UsageError
from node.exchange.membership.networks import Networks
from node.exchange.membership.pairing import HowToPair, Pairing


class Near(Protocol):
    """Facilities announced on this node's LAN; announcements are not authenticated."""

    def introductions(self, facility: FacilityId) -> Sequence[str]:
        """Return the announced addresses of its introduction service."""


class Meeting:
    """Pairs with facilities, wherever they are found."""

    def __init__(self, pairing: Pairing, networks: Networks, near: Near) -> None:
        self._pairing = pairing
        self._networks = networks
        self._near = near

    async def pair(self, facility: FacilityId, at: str, *, actor: Actor, how: HowToPair) -> Peer:
        """Pin a facility; durable once this returns.

        Args:
            facility: The facility.
            at: The address of its introduction service; empty to look for it.
            actor: Who asked.
            how: The options that a person gave.

        Raises:
            UsageError: no address was given, and there is no other way to find it.
            NodeError: it was not found, does not answer, or presents invalid statements.

        Cancellation:
            It is pinned or not; `Facilities.all` shows which.
        """
        for address in [at] if at else self._near.introductions(facility):
            try:
                return await self._pairing.pair_by_id(facility, address, actor=actor, how=how)
            except (PeerError, DocumentError):  # anyone on the LAN can announce any facility
                if at:
                    raise
        identity, name = await self._shown(facility)
        return await self._pairing.pair_by_identity(identity, name, actor=actor, how=how)

    async def _shown(self, facility: FacilityId) -> tuple[Identity, str]:
        """Return the newest that a facility's directory shows of it, or it has shown itself here.

        With it comes the name that its network gave it; empty where it is in none.
        """
        asking = self._pairing.strangers.identity(facility)
        if asking is None and not self._networks.all():
            raise UsageError(
                "no address of this facility is known: add --at HOST:PORT, or pair with its file,"
                " or join a network whose directory knows it"
            )
        try:
            found = await self._networks.lookup(facility)
        except NodeError:  # no network knows it, or no directory is reached
            if asking is None:
                raise
            return asking, ""
        listed = found.record.identity
        newest = max(listed, asking or listed, key=lambda shown: shown.order)
        return newest, found.record.membership.invitation.display_name
