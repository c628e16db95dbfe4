"""The use cases of networks: join, leave, find members, pin a member as a peer."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import structlog

from node.documents.identity import Identity
from node.documents.network import JoinLetter, Membership, Network, Record, claim, open_membership
from node.documents.peers import Peer
from node.domain.actors import Actor
from node.domain.events import NetworksChanged, Publish
from node.domain.ids import FacilityId, NetworkId
from node.domain.names import looks_like_id, same_name, several_named
from node.domain.network import Standing
from node.errors import (
    BadSignature,
    Conflict,
    DocumentError,
    NodeError,
    NotFound,
    PeerUntrusted,
    UsageError,
)
from node.exchange.membership.authority import Authority
from node.exchange.membership.memberships import Memberships, NetworkBook, objection
from node.exchange.membership.pairing import Pairing
from node.exchange.membership.record_cache import RecordCache
from node.system import clock

log = structlog.get_logger()
_MOST_MEMBERSHIPS = 8
_MOST_FOUND = 100

_Ask = Callable[[Network], Awaitable[Sequence[Record]]]


class Directories(Protocol):
    """Asks networks' directories; `node.federation.directory.directories` does."""

    async def join(self, letter: JoinLetter, membership: Membership) -> None:
        """Use an invitation at the letter's directory."""

    async def find(self, network: Network, words: str, limit: int) -> Sequence[Record]:
        """Return verified records that fit, best first."""

    async def lookup(self, network: Network, facilities: Sequence[FacilityId]) -> Sequence[Record]:
        """Return verified records of the nodes of facilities."""

    def expect_list(self, network: NetworkId) -> None:
        """See to it that the newest list is shown soon, which came from a peer."""


@dataclass(frozen=True)
class Found:
    """A record, and the network in which it was found."""

    network: Network
    record: Record


class Networks:
    """What people and peers request of networks; publishes each change of the networks."""

    def __init__(
        self,
        book: NetworkBook,
        memberships: Memberships,
        directories: Directories,
        authority: Authority,
        record_cache: RecordCache,
        pairing: Pairing,
        facility_key: bytes,
        publish: Publish,
    ) -> None:
        self._book = book
        self._memberships = memberships
        self._directories = directories
        self._authority = authority
        self._record_cache = record_cache
        self._pairing = pairing
        self._facility_key = facility_key
        self._publish = publish

    def all(self) -> list[Network]:
        """Return all networks, in the order in which they were joined."""
        return self._memberships.all()

    async def _changed(self) -> None:
        await self._memberships.load()
        await self._publish(NetworksChanged())

    # -- members that nobody pinned -------------------------------------------------------

    async def presented(self, identity: Identity, memberships: Sequence[bytes]) -> bool:
        """Process the statements and memberships of a caller; return whether it is trusted now."""
        peer = await self._pairing.pin_of(identity.facility_id)
        if peer is not None and peer.is_removed:
            return False
        if peer is not None and not self._memberships.distrust(peer):
            return await self._pairing.presented(identity)
        for encoded in memberships[:_MOST_MEMBERSHIPS]:
            if await self._admit(identity, encoded):
                return True
        if peer is None:
            self._pairing.strangers.note(identity)
        return False

    async def _admit(self, identity: Identity, encoded: bytes) -> bool:
        for network in self.all() if self._memberships.trusts_members else ():
            try:
                membership = open_membership(encoded, network.network_key)
            except DocumentError:
                continue  # of another network
            invitation, facility = membership.invitation, membership.facility_id
            if facility != identity.facility_id or objection(network, invitation.id, facility):
                continue
            # Removed by a person, ourselves, or with another's node key.
            with suppress(BadSignature, Conflict, UsageError, PeerUntrusted):
                name = invitation.display_name
                await self._pairing.pin_member(identity, name, (network.id, invitation.id))
                return True
        return False

    async def admit(self, facility: FacilityId) -> bool:
        """Return whether a facility that wants to reach us is trusted.

        A member that was never met, and that cannot dial us to show itself, is looked up.
        """
        peer = await self._pairing.pin_of(facility)
        if peer is not None and (peer.is_removed or not self._memberships.distrust(peer)):
            return not peer.is_removed
        try:
            await self.meet(str(facility))
        except NodeError as exc:
            log.info("not admitted", peer=facility.short(), code=exc.code.value)
            return False
        return True

    async def meet(self, text: str) -> Peer:
        """Return the member that a person means by a Facility ID or a whole name, pinned as one.

        Raises:
            NotFound: no such member, or this node trusts paired facilities only.
            Conflict: several are called so, or a person removed it here.
            PeerUntrusted: it is no member now; the message says why.
        """
        if not self.all():
            raise NotFound(f"no paired facility is called {text!r}; `emix peers` lists them")
        if not self._memberships.trusts_members:
            await self._explain_unpaired(text)
            raise NotFound(f"no paired facility is called {text!r}; `emix peers` lists them")
        found = await self._named(text)
        by_facility = {f.record.identity.facility_id: f for f in found}
        if not by_facility:
            raise NotFound(f"no facility is called {text!r}; see `emix find` and `emix peers`")
        if len(by_facility) > 1:
            raise several_named({f: _listed_name(one) for f, one in by_facility.items()})
        (one,) = by_facility.values()
        invitation, identity = one.record.membership.invitation, one.record.identity
        why_not = objection(one.network, invitation.id, identity.facility_id)
        if why_not:
            raise PeerUntrusted(
                f"cannot send to {text} in {one.network.name}: {why_not}. Ask its operator"
                " (`emix networks` shows this facility's standing), or pair with each other"
            )
        member = (one.network.id, invitation.id)
        return await self._pairing.pin_member(identity, invitation.display_name, member)

    async def _explain_unpaired(self, text: str) -> None:
        """Raise `PeerUntrusted` with the next step if the text names an unpaired member."""
        found: list[Found] = []
        with suppress(NodeError):  # no directory answers: nobody is found
            found = await self._named(text)
        for facility in {f.record.identity.facility_id for f in found}:
            raise PeerUntrusted(
                f"{text} is a member of {found[0].network.name}, and this node trusts paired"
                f" facilities only. Pair here with `emix peers pair {facility}`, and there with"
                ' this one. Or set trust = "network" in [federation] of emix.toml on both sides'
            )

    async def check_one_name(self, text: str, peer: Peer) -> None:
        """Check that a name by which a peer was found is not another member's, too.

        Raises:
            Conflict: it is.
        """
        if not self._memberships.trusts_members or not same_name(text, peer.name):
            return  # it was found by its Facility ID, or nobody else could be meant
        found: list[Found] = []
        with suppress(NodeError):  # no directory answers, and nobody else is remembered
            found = await self._named(text)
        named = {f.record.identity.facility_id: _listed_name(f) for f in found}
        if named.keys() - {peer.facility_id}:
            raise several_named({**named, peer.facility_id: peer.name})

    async def _named(self, text: str) -> list[Found]:
        try:
            return [await self.lookup(FacilityId.parse(text))]
        except ValueError:
            if looks_like_id(text):  # a beginning of one, which names no member
                return []
        return [
            found
            for found in await self.find(text, _MOST_FOUND)
            # By the name that the network signed: what a member calls itself could be another's.
            if same_name(found.record.membership.invitation.display_name, text)
        ]

    # -- joining --------------------------------------------------------------------------

    async def join(self, text: str, actor: Actor) -> Network:
        """Join a network with its operator's letter; durable once this returns.

        Raises:
            DocumentError: the text is not a join letter.
            PeerUntrusted: the invitation has expired, or was revoked.
            Conflict: another facility has used it.
            PeerUnreachable: no directory answers.
        """
        letter = JoinLetter.decode(text)
        now = clock.now()
        if now >= letter.invitation.expires_seconds:
            raise PeerUntrusted("the join letter has expired; ask the network for a new one")
        joined = self._memberships.get(letter.invitation.network)
        if joined is not None and joined.standing(now) is Standing.MEMBER:
            raise Conflict(f"this facility is already in {joined.name}; the letter was not used")
        membership = claim(letter, self._facility_key, now)
        await self._directories.join(letter, membership)
        await self._book.add(letter, membership, actor)
        await self._changed()
        return next(n for n in self.all() if n.id == letter.invitation.network)

    async def leave(self, text: str, actor: Actor) -> Network:
        """Leave a network, by its name, id or the id's beginning. Its operator can revoke it too.

        Durable, and in force, once this returns; cancelled in between, it is in force with the next
        start.

        Raises:
            NotFound: this facility is in no such network.
            Conflict: several are called so.
        """
        wanted = text.strip().casefold()
        found = [
            n
            for n in self.all()
            if n.name.casefold() == wanted or (len(wanted) >= 4 and str(n.id).startswith(wanted))
        ]
        if not found:
            raise NotFound(f"this facility is in no network called {text!r}; see `emix networks`")
        if len(found) > 1:
            ids = ", ".join(sorted(str(n.id) for n in found))
            raise Conflict(f"{len(found)} networks have this name; use the network's ID: {ids}")
        await self._book.leave(found[0].id, actor)
        await self._changed()
        return found[0]

    # -- what peers pass on ---------------------------------------------------------------

    async def accept_passed_list(
        self, facility: FacilityId, network_id: NetworkId, encoded: bytes
    ) -> None:
        """Accept a list that a peer has, if it is the network's and newer.

        A directory that does not show it before long is reported then.
        """
        if await self._authority.accept_passed_list(facility, network_id, encoded):
            self._directories.expect_list(network_id)

    async def keep_remembering(self) -> None:
        """Refresh the remembered records of members, for times without a directory; for ever."""

        async def ask(network: Network, facilities: Sequence[FacilityId]) -> Sequence[Record]:
            records = await self._directories.lookup(network, facilities)
            for record in records:  # a directory pushes what is new of a thousand at most
                await self._pairing.accept_statements(record.identity)
            return records

        await self._record_cache.keep_fresh(self.all, ask)

    # -- finding --------------------------------------------------------------------------

    async def find(self, words: str, limit: int) -> list[Found]:
        """Return members of all networks that fit: those that directories show, best first.

        After them come remembered ones that no directory shows: it is away, or their node is.

        Raises:
            UsageError: this facility is in no network, or no word is asked for.
            NodeError: a directory did not answer, and nothing that fits is remembered.
        """
        if not words.strip():
            raise UsageError("give words of a name, city or department")
        return await self._ask_all(
            lambda network: self._directories.find(network, words, limit),
            lambda network: self._record_cache.find(network, words, limit),
            limit,
        )

    async def lookup(self, facility: FacilityId) -> Found:
        """Return a facility's newest record; a remembered one if no directory shows it.

        Raises:
            UsageError: this facility is in no network.
            NotFound: no directory knows that facility.
            NodeError: a directory did not answer, and the facility is not remembered.
        """
        found = await self._ask_all(
            lambda network: self._directories.lookup(network, [facility]),
            lambda network: self._record_cache.lookup(network, facility),
            100,
        )
        if not found:
            raise NotFound(f"no directory lists facility {facility.short()} as a member now")
        return max(found, key=_rank)

    async def _ask_all(self, ask: _Ask, ask_cache: _Ask, limit: int) -> list[Found]:
        if not self.all():
            raise UsageError("this facility has joined no network yet: `emix join LETTER`")
        shown: list[Found] = []
        cached: list[Found] = []
        error: NodeError | None = None
        for network in self.all():
            try:
                records = await ask(network)
            except NodeError as exc:
                error, records = exc, []
            else:
                with suppress(NodeError):  # a full disk takes nothing from the answer
                    await self._record_cache.take(network, records)
            here = {record.identity.facility_id for record in records}
            shown += [Found(network, record) for record in records]
            with suppress(NodeError):  # nor does a damaged record of ours
                cached += [
                    Found(network, record)
                    for record in await ask_cache(network)
                    if record.identity.facility_id not in here
                ]
        if error is not None and not shown and not cached:
            raise error
        return (shown + cached)[:limit]


def _rank(found: Found) -> tuple[bool, int]:
    """Return the rank of a record: first whether the facility is a member, then how new it is."""
    identity, invitation = found.record.identity, found.record.membership.invitation
    why_not = objection(found.network, invitation.id, identity.facility_id)
    return not why_not, identity.profile.issued_seconds


def _listed_name(found: Found) -> str:
    return found.record.membership.invitation.display_name
