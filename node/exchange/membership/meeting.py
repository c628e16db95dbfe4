"""Pairing with a facility by its ID: found at an address, near by, or through a directory."""

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
    """Who seems to be on the own network."""

    def introductions(self, facility: FacilityId) -> Sequence[str]:
        """Return where its introduction service seems to be."""


class Meeting:
    """Pairs with facilities, wherever they are found."""

    def __init__(self, pairing: Pairing, networks: Networks, near: Near) -> None:
        self._pairing = pairing
        self._networks = networks
        self._near = near

    async def pair(self, facility: FacilityId, at: str, *, actor: Actor, how: HowToPair) -> Peer:
        """Pin a facility; durable once this returns.

        Args:
            facility: Which.
            at: Where its introduction service is; empty to look for it.
            actor: Who asked.
            how: What a person says beside it.

        Raises:
            UsageError: it was looked for, and nothing says where it is.
            NodeError: it was not found, does not answer, or shows what it must not.

        Cancellation:
            It is pinned, or it is not; whichever, `all` says so.
        """
        for address in [at] if at else self._near.introductions(facility):
            try:
                return await self._pairing.pair_by_id(facility, address, actor=actor, how=how)
            except (PeerError, DocumentError):  # whoever is near can say to be anyone
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
                "say where its introduction service is: --at HOST:PORT (or pair with its"
                " file, or join a network whose directory knows it)"
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
