"""Networks: joining one, taking over its signed lists, finding and meeting its members.

A directory is asked and never believed: what it shows is verified first, and what contradicts
what was seen before raises an alarm and changes nothing.
"""

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import structlog
import trio

from node.documents.identity import Identity
from node.documents.lists import open_list
from node.documents.network import JoinLetter, Membership, Network, Record, claim, open_membership
from node.documents.peers import Peer
from node.domain.ids import FacilityId, InvitationId, NetworkId
from node.domain.names import looks_like_id, same_name, several_named
from node.domain.network import ListPlace, ListProblem, NetworkView, Standing
from node.errors import (
    BadSignature,
    Conflict,
    DocumentError,
    NodeError,
    NotFound,
    PeerRefused,
    PeerUntrusted,
    UsageError,
)
from node.exchange.membership.pairing import Pairing
from node.exchange.membership.record_cache import Remembered
from node.system import clock

log = structlog.get_logger()
_MOST_MEMBERSHIPS = 8
_MOST_FOUND = 100
_LATE = (ListProblem.OLDER.value, ListProblem.EXPIRED.value)
"""What an honest peer may show: it has not heard of ours yet, or it was off for a week."""

_SAME_ALARMS = 20
"""Of one text a minute; the audit log has each once, until an admin has seen it."""

_Ask = Callable[[Network], Awaitable[Sequence[Record]]]


class NetworkBook(Protocol):
    """What networks need of the store."""

    async def all(self) -> list[Network]:
        """Return all networks that the facility has joined."""

    async def add(self, letter: JoinLetter, membership: Membership, operator: str) -> None:
        """Keep a network that the facility has joined."""

    async def keep_view(self, network: NetworkId, view: NetworkView, encoded: bytes) -> None:
        """Keep what is known of a network after a newer list."""

    async def leave(self, network: NetworkId, operator: str) -> None:
        """Forget a network."""

    async def alarm(self, network: NetworkId, problem: str) -> None:
        """Record that a directory showed what it should not have, unless that is an open alarm."""


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
    """The networks of this facility. `on_change` is awaited after each change of them."""

    def __init__(
        self,
        book: NetworkBook,
        directories: Directories,
        remembered: Remembered,
        pairing: Pairing,
        facility_key: bytes,
        *,
        trusts_members: bool,
    ) -> None:
        """Prepare; `trusts_members` is the policy: whether members need not be paired."""
        self._book = book
        self._directories = directories
        self._remembered = remembered
        self._pairing = pairing
        self._facility_key = facility_key
        self._trusts_members = trusts_members
        self._known: dict[NetworkId, Network] = {}
        self._listed: dict[NetworkId, frozenset[FacilityId]] = {}
        self._taking = trio.Lock()
        self._alarmed: Counter[tuple[NetworkId, str]] = Counter()
        self._alarmed_minute = 0
        self.on_change: Callable[[], Awaitable[None]] = _nothing

    def all(self) -> list[Network]:
        """Return all networks, in the order in which they were joined."""
        return list(self._known.values())

    async def load(self) -> None:
        """Take over what the store holds; everything else answers from that."""
        self._known = {network.id: network for network in await self._book.all()}
        lists = [(n.id, n.view.latest) for n in self._known.values()]
        self._listed = {n: frozenset(one.members.values()) for n, one in lists if one}

    async def _changed(self) -> None:
        await self.load()
        await self.on_change()

    # -- members that nobody pinned -------------------------------------------------------

    def distrust(self, peer: Peer) -> str:
        """Return why a peer is not trusted now; empty for one that is, or that a person pinned."""
        if peer.network is None or peer.invitation is None:
            return ""
        if not self._trusts_members:
            return "it is a member of a network, and this node trusts paired facilities only"
        network = self._known.get(peer.network)
        if network is None:
            return "this facility has left the network that they had in common"
        return _objection(network, peer.invitation, peer.facility_id)

    def memberships(self) -> list[bytes]:
        """Return what shows this facility to other members."""
        return [n.membership.encoded for n in self._known.values()] if self._trusts_members else []

    async def presented(self, identity: Identity, memberships: Sequence[bytes]) -> bool:
        """Take what a stranger or a peer shows of itself; return whether it is trusted now."""
        peer = await self._pairing.pin_of(identity.facility_id)
        if peer is not None and peer.is_removed:
            return False
        if peer is not None and not self.distrust(peer):
            return await self._pairing.presented(identity)
        for encoded in memberships[:_MOST_MEMBERSHIPS]:
            if await self._admit(identity, encoded):
                return True
        if peer is None:
            self._pairing.strangers.note(identity)
        return False

    async def _admit(self, identity: Identity, encoded: bytes) -> bool:
        for network in self._known.values() if self._trusts_members else ():
            try:
                membership = open_membership(encoded, network.network_key)
            except DocumentError:
                continue  # of another network
            invitation, facility = membership.invitation, membership.facility_id
            if facility != identity.facility_id or _objection(network, invitation.id, facility):
                continue
            # Removed by a person, ourselves, or with another's node key.
            with suppress(BadSignature, Conflict, UsageError, PeerUntrusted):
                name = invitation.display_name
                await self._pairing.pin_member(identity, name, (network.id, invitation.id))
                return True
        return False

    async def let_in(self, facility: FacilityId) -> bool:
        """Return whether a facility that wants to reach us is trusted.

        A member that was never met, and that cannot dial us to show itself, is looked up.
        """
        peer = await self._pairing.pin_of(facility)
        if peer is not None and (peer.is_removed or not self.distrust(peer)):
            return not peer.is_removed
        try:
            await self.meet(str(facility))
        except NodeError as exc:
            log.info("not let in", peer=facility.short(), code=exc.code.value)
            return False
        return True

    async def meet(self, text: str) -> Peer:
        """Return the member that a person means by a Facility ID or a whole name, pinned as one.

        Raises:
            NotFound: no such member, or this node trusts paired facilities only.
            Conflict: several are called so, or a person removed it here.
            PeerUntrusted: it is no member now; the message says why.
        """
        if not self._known:
            raise NotFound(f"no paired facility is called {text!r}; `emix peers` lists them")
        if not self._trusts_members:
            await self._explain_unpaired(text)
            raise NotFound(f"no paired facility is called {text!r}; `emix peers` lists them")
        found = await self._named(text)
        by_facility = {f.record.identity.facility_id: f for f in found}
        if not by_facility:
            raise NotFound(f"nobody is called {text!r}; `emix find` and `emix peers` list who is")
        if len(by_facility) > 1:
            raise several_named({f: _listed_name(one) for f, one in by_facility.items()})
        (one,) = by_facility.values()
        invitation, identity = one.record.membership.invitation, one.record.identity
        objection = _objection(one.network, invitation.id, identity.facility_id)
        if objection:
            raise PeerUntrusted(
                f"{text} cannot be sent to in {one.network.name}: {objection}. Have its operator"
                " look (`emix networks` says how this facility stands), or pair with each other"
            )
        member = (one.network.id, invitation.id)
        return await self._pairing.pin_member(identity, invitation.display_name, member)

    async def _explain_unpaired(self, text: str) -> None:
        """Raise what to do where a member is meant with whom nobody has paired here."""
        found: list[Found] = []
        with suppress(NodeError):  # no directory answers: nobody is found
            found = await self._named(text)
        for facility in {f.record.identity.facility_id for f in found}:
            raise PeerUntrusted(
                f"{text} is a member of {found[0].network.name}, and this node trusts paired"
                f" facilities only. Here: `emix peers pair {facility}`; there: the same with this"
                ' facility. Or set trust = "network" in [federation] of emix.toml on both sides'
            )

    async def hold_one_name(self, text: str, peer: Peer) -> None:
        """Hold that a name by which a peer was found is not another member's, too.

        Raises:
            Conflict: it is.
        """
        if not self._trusts_members or not same_name(text, peer.name):
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

    async def join(self, text: str, operator: str) -> Network:
        """Join a network with its operator's letter; durable once this returns.

        Raises:
            DocumentError: it is no join letter.
            PeerUntrusted: the invitation has expired, or was revoked.
            Conflict: another facility has used it.
            PeerUnreachable: no directory answers.
        """
        letter = JoinLetter.decode(text)
        now = clock.now()
        if now >= letter.invitation.expires_seconds:
            raise PeerUntrusted("the join letter has expired; ask the network for a new one")
        joined = self._known.get(letter.invitation.network)
        if joined is not None and joined.standing(now) is Standing.MEMBER:
            raise Conflict(f"this facility is a member of {joined.name} already; keep the letter")
        membership = claim(letter, self._facility_key, now)
        await self._directories.join(letter, membership)
        await self._book.add(letter, membership, operator)
        await self._changed()
        return self._known[letter.invitation.network]

    async def leave(self, text: str, operator: str) -> Network:
        """Leave a network, by its name, id or the id's beginning. Its operator can revoke it too.

        Raises:
            NotFound: this facility is in no such network.
        Conflict: several are called so.
        """
        wanted = text.strip().casefold()
        found = [
            n
            for n in self._known.values()
            if n.name.casefold() == wanted or (len(wanted) >= 4 and str(n.id).startswith(wanted))
        ]
        if not found:
            raise NotFound(f"this facility is in no network called {text!r}; `emix networks`")
        if len(found) > 1:
            ids = ", ".join(sorted(str(n.id) for n in found))
            raise Conflict(f"{len(found)} networks are called so; use the network's ID: {ids}")
        await self._book.leave(found[0].id, operator)
        await self._changed()
        return found[0]

    # -- what directories show ------------------------------------------------------------

    async def took_list(self, network_id: NetworkId, encoded: bytes) -> None:
        """Take over a list that a directory shows, if it is the network's and newer."""
        problem = await self._take_list(network_id, encoded)
        if problem:
            await self._alarm(network_id, problem)

    async def _take_list(self, network_id: NetworkId, encoded: bytes) -> str:
        """Take a list over if it is the network's and newer; return what is wrong with it."""
        async with self._taking:  # a directory's and a peer's, or an older one could come last
            return await self._take_next_list(network_id, encoded)

    async def _take_next_list(self, network_id: NetworkId, encoded: bytes) -> str:
        network = self._known.get(network_id)
        if network is None or network.signed_list == encoded:
            return ""  # it was left just now, or says what is known
        now = clock.now()
        try:
            shown = open_list(encoded, network.network_key, now)
        except DocumentError as exc:
            return f"a list that is not the network's: {exc}"
        following = network.view.after(shown, now)
        if isinstance(following, ListProblem):
            return following.value
        if following is network.view:
            return ""
        await self._book.keep_view(network_id, following, encoded)
        epoch, number = shown.place
        log.info("list taken over", network=network_id.short(), epoch=epoch, number=number)
        await self._changed()
        with suppress(KeyError):  # it was left just now
            await self._remembered.listed(self._known[network_id])
        return ""

    # -- what peers pass on ---------------------------------------------------------------

    def list_places(self) -> dict[NetworkId, ListPlace]:
        """Return where the newest lists known stand, by network; `NO_LIST` for none yet."""
        return {n.id: n.view.place for n in self._known.values()}

    def list_places_for(self, facility: FacilityId) -> dict[NetworkId, ListPlace]:
        """Return the same, of those lists that name a facility: nobody else learns of them.

        One that has expired is not among them: nobody takes it over any more.
        """
        now = clock.now()
        lists = {n: self._known[n].view.latest for n, f in self._listed.items() if facility in f}
        return {n: one.place for n, one in lists.items() if one and now < one.expires_time}

    def list_for(self, facility: FacilityId, network_id: NetworkId) -> bytes:
        """Return a network's newest list as it was signed.

        Raises:
            NotFound: it does not name that facility, or there is none.
        """
        if facility not in self._listed.get(network_id, ()):
            raise NotFound("no list of that network is here for this facility")
        return self._known[network_id].signed_list

    async def took_passed_list(
        self, facility: FacilityId, network_id: NetworkId, encoded: bytes
    ) -> None:
        """Take over a list that a peer has, if it is the network's and newer.

        A directory that does not show it before long is noticed then.
        """
        before = self.list_places().get(network_id)
        problem = await self._take_list(network_id, encoded)
        is_of_network = facility in self._listed.get(network_id, ())
        if problem and problem not in _LATE:
            if not is_of_network:
                raise PeerRefused("a list of a network that the two nodes do not share")
            await self._alarm(network_id, f"facility {facility.short()} shows {problem}")
        if self.list_places().get(network_id) != before:
            self._directories.expect_list(network_id)

    async def took_record(self, network_id: NetworkId, record: Record) -> None:
        """Take over what a member states anew: remember it, and renew its pin if it has one."""
        network = self._known.get(network_id)
        if network is not None:
            await self._remembered.take(network, [record])
        await self._pairing.got_statements(record.identity)

    async def keep_remembering(self) -> None:
        """Ask for members' records now and then, for when no directory answers; for ever."""

        async def ask(network: Network, facilities: Sequence[FacilityId]) -> Sequence[Record]:
            records = await self._directories.lookup(network, facilities)
            for record in records:  # a directory pushes what is new of a thousand at most
                await self._pairing.got_statements(record.identity)
            return records

        await self._remembered.keep_fresh(self.all, ask)

    async def was_fooled(self, network_id: NetworkId, problem: str) -> None:
        """Note that a directory showed what is not signed by whom it should be."""
        await self._alarm(network_id, problem)

    async def _alarm(self, network_id: NetworkId, problem: str) -> None:
        # So often a minute: a directory must not fill the logs. `problem` is in our own words, or
        # it could have others used up.
        minute = int(time.monotonic() // 60)
        if minute != self._alarmed_minute:
            self._alarmed_minute = minute
            self._alarmed.clear()
        key = (network_id, problem)
        self._alarmed[key] += 1
        if self._alarmed[key] > _SAME_ALARMS:
            return
        log.error("directory alarm", network=network_id.short(), problem=problem)
        await self._book.alarm(network_id, problem)

    # -- finding --------------------------------------------------------------------------

    async def find(self, words: str, limit: int) -> list[Found]:
        """Return members of all networks that fit: those that directories show, best first.

        After them come remembered ones that no directory shows: it is away, or their node is.

        Raises:
            UsageError: this facility is in no network, or no word is asked for.
            NodeError: a directory did not answer, and nothing that fits is remembered.
        """
        if not words.strip():
            raise UsageError("say what to look for: words of a name, city or department")
        return await self._ask_all(
            lambda network: self._directories.find(network, words, limit),
            lambda network: self._remembered.find(network, words, limit),
            limit,
        )

    async def lookup(self, facility: FacilityId) -> Found:
        """Return a facility's newest record, a remembered one of who is not found otherwise.

        Raises:
            UsageError: this facility is in no network.
            NotFound: no directory knows that facility.
            NodeError: a directory did not answer, and the facility is not remembered.
        """
        found = await self._ask_all(
            lambda network: self._directories.lookup(network, [facility]),
            lambda network: self._remembered.lookup(network, facility),
            100,
        )
        if not found:
            raise NotFound(f"no directory shows facility {facility.short()} as a member now")
        return max(found, key=_rank)

    async def _ask_all(self, ask: _Ask, remember: _Ask, limit: int) -> list[Found]:
        if not self._known:
            raise UsageError(
                "this facility has joined no network that could be asked: `emix join LETTER`"
            )
        shown: list[Found] = []
        remembered: list[Found] = []
        error: NodeError | None = None
        for network in self.all():
            try:
                records = await ask(network)
            except NodeError as exc:
                error, records = exc, []
            else:
                with suppress(NodeError):  # a full disk takes nothing from the answer
                    await self._remembered.take(network, records)
            here = {record.identity.facility_id for record in records}
            shown += [Found(network, record) for record in records]
            with suppress(NodeError):  # nor does a damaged record of ours
                remembered += [
                    Found(network, record)
                    for record in await remember(network)
                    if record.identity.facility_id not in here
                ]
        if error is not None and not shown and not remembered:
            raise error
        return (shown + remembered)[:limit]


def _rank(found: Found) -> tuple[bool, int]:
    """Return how good a record of a facility is: one network may have revoked it, another not."""
    identity, invitation = found.record.identity, found.record.membership.invitation
    objection = _objection(found.network, invitation.id, identity.facility_id)
    return not objection, identity.profile.issued_seconds


def _listed_name(found: Found) -> str:
    return found.record.membership.invitation.display_name


def _objection(network: Network, invitation: InvitationId, facility: FacilityId) -> str:
    """Return why a facility and this one are not both members now; empty if they are."""
    now = clock.now()
    mine = network.standing(now)
    if mine is not Standing.MEMBER:
        return f"this facility is {mine.value}"
    standing = network.view.standing(invitation, facility, now)
    return "" if standing is Standing.MEMBER else f"it is {standing.value}"


async def _nothing() -> None:
    return
