"""What a directory process knows, in memory: members, the signed list, nodes, who is online.

Everything is verified before it gets in. Questions are answered from here alone, so the database
may be away; and nothing here does I/O.
"""

from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass

from node.crypto.digests import sha256
from node.crypto.signing import network_id
from node.documents.identity import Identity
from node.documents.lists import make_change
from node.documents.network import Listing, Membership
from node.domain.ids import FacilityId, InvitationId, NodeId
from node.domain.network import ListProblem, NetworkList, NetworkView
from node.domain.relays import RelayPolicy
from node.domain.search import Search
from node.errors import Conflict, NotFound, PeerUntrusted

MAX_NODES = 16
"""Of one facility."""

_EARLIER_LISTS = 3
"""Earlier lists from which a change to the newest is kept; older ones need the whole list."""


@dataclass(frozen=True, slots=True)
class ListAnswer:
    """The newest list, as somebody needs it: whole, as a change, or not at all."""

    whole: bytes = b""
    change: bytes = b""
    is_known: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """A node as it announced itself, verified.

    Attributes:
        statements: As signed; `listing` likewise.
        generation: As in the node's certificate, which stands until `cert_expires`.
        expires_time: Until when the announcement stands.
    """

    node: NodeId
    facility: FacilityId
    node_key: bytes
    statements: bytes
    listing: bytes
    generation: int
    cert_expires: int
    issued_seconds: tuple[int, int]
    texts: tuple[str, ...]
    city: str
    software: str
    relays: RelayPolicy
    expires_time: float

    def says_the_same(self, other: "Record") -> bool:
        """Whether another announcement says nothing new."""
        return (self.statements, self.listing) == (other.statements, other.listing)

    @classmethod
    def of(
        cls, identity: Identity, listing: Listing, signed_listing: bytes, expires: float
    ) -> "Record":
        """Return the record of a verified identity and listing."""
        name = identity.profile.display_name
        return cls(
            node=identity.node_id,
            facility=identity.facility_id,
            node_key=identity.cert.node_key,
            statements=identity.encoded,
            listing=signed_listing,
            generation=identity.cert.generation,
            cert_expires=identity.cert.expires_seconds,
            issued_seconds=(identity.profile.issued_seconds, listing.issued_seconds),
            texts=(name, listing.city, *listing.departments),
            city=listing.city,
            software=listing.software,
            relays=listing.relays,
            expires_time=expires,
        )


class Registry:
    """The network as this process knows it."""

    def __init__(self, network_key: bytes) -> None:
        self.network_key = network_key
        self.network = network_id(network_key)
        self.view = NetworkView()
        self.encoded_list = b""
        self._earlier: deque[NetworkList] = deque(maxlen=_EARLIER_LISTS)
        self._changes: dict[bytes, bytes] = {}  # to the newest list, by the earlier one's digest
        self._memberships: dict[FacilityId, dict[InvitationId, Membership]] = defaultdict(dict)
        self._invited: dict[InvitationId, FacilityId] = {}
        self._records: dict[NodeId, Record] = {}
        self._nodes: dict[FacilityId, set[NodeId]] = defaultdict(set)
        self._online: dict[NodeId, set[str]] = defaultdict(set)
        self._by_statements: dict[bytes, NodeId] = {}  # by their digest
        self._generations: dict[FacilityId, int] = {}  # of nodes that have replaced others
        self._search = Search[NodeId]()

    # -- members ------------------------------------------------------------------------------

    def put_member(self, membership: Membership) -> FacilityId | None:
        """Take a membership that has been enrolled; return who had its invitation before."""
        invitation, facility = membership.invitation.id, membership.facility_id
        other = self._invited.get(invitation, facility)
        if other != facility:
            self._memberships[other].pop(invitation, None)
        self._invited[invitation] = facility
        self._memberships[facility][invitation] = membership
        for node in self._nodes.get(facility, ()):
            self._index(self._records[node])  # it is found by its new name, too
        return other if other != facility else None

    def has_joined(self, facility: FacilityId, invitation: InvitationId) -> bool:
        """Whether a facility is known to have come in with an invitation."""
        return invitation in self._memberships.get(facility, {})

    def membership(self, facility: FacilityId) -> Membership:
        """Return a facility's membership that is not revoked, the one in the list if there is one.

        Raises:
            PeerUntrusted: it has none.
        """
        standing = self._standing(facility)
        if not standing:
            known = self._memberships.get(facility, {}).keys() & self.view.revoked
            why = "was revoked" if known else "is no member of this network; join it first"
            raise PeerUntrusted(f"facility {facility.short()} {why}")
        listed = self.view.latest.members if self.view.latest else {}
        return max(standing, key=lambda m: (m.invitation.id in listed, m.joined_seconds))

    def memberships(self) -> Iterable[Membership]:
        """Return all memberships, revoked ones too."""
        return [m for known in self._memberships.values() for m in known.values()]

    def take_list(self, shown: NetworkList, encoded: bytes) -> frozenset[FacilityId]:
        """Put a verified list in force; return the facilities that are no longer members.

        Its expiry was checked when it was published, before it was kept.

        Raises:
            Conflict: it is not newer than the one known.
        """
        following = self.view.after(shown, 0.0)
        if isinstance(following, ListProblem):
            raise Conflict(str(following.value))
        before = [f for f in self._memberships if self.is_member(f)]
        confirmed = {f for f in before if self.is_confirmed(f)}
        if self.view.latest is not None:
            self._earlier.append(self.view.latest)
        self._changes.clear()
        self.view, self.encoded_list = following, encoded
        return frozenset(
            f
            for f in before
            if not self.is_member(f) or (f in confirmed and not self.is_confirmed(f))
        )

    def list_for(self, known: bytes, *, may_have_whole: bool) -> ListAnswer:
        """Return the newest list in the form needed by a node that has the list with this digest.

        A node that may not have the whole list gets none, unless it has one of the last few lists:
        then it gets the change, so that a former member learns why it is no longer one.
        """
        latest = self.view.latest
        if latest is None:
            return ListAnswer()
        if known == latest.digest:
            return ListAnswer(is_known=True)
        for base in self._earlier:
            if base.digest == known and known not in self._changes:
                self._changes[known] = make_change(base, latest, self.encoded_list)
        change = self._changes.get(known, b"")
        if change:
            return ListAnswer(change=change)
        return ListAnswer(
            whole=self.encoded_list if may_have_whole or known in self._changes else b""
        )

    def is_member(self, facility: FacilityId) -> bool:
        """Whether a facility has a membership that stands."""
        return bool(self._standing(facility))

    def is_confirmed(self, facility: FacilityId) -> bool:
        """Whether the newest list names a facility."""
        listed = self.view.latest.members if self.view.latest else {}
        return any(m.invitation.id in listed for m in self._standing(facility))

    def is_revoked_by_list(self, membership: Membership) -> bool:
        """Whether the newest list revokes a membership, and no other facility came in by it."""
        invitation, latest = membership.invitation.id, self.view.latest
        whose = self._invited.get(invitation, membership.facility_id)
        is_revoked = latest is not None and invitation in latest.revoked
        return is_revoked and whose == membership.facility_id

    def check_confirmed(self, facility: FacilityId) -> None:
        """Check that the newest list names a facility.

        Raises:
            PeerUntrusted: it does not.
        """
        if not self.is_confirmed(facility):
            raise PeerUntrusted(
                f"facility {facility.short()} is not confirmed yet by the network's signed list;"
                " the network's operator confirms it with `emix-directory list sign`"
            )

    def _standing(self, facility: FacilityId) -> list[Membership]:
        """Return a facility's memberships: not revoked, and nobody else listed by them."""
        listed = self.view.latest.members if self.view.latest else {}
        return [
            m
            for i, m in self._memberships.get(facility, {}).items()
            if i not in self.view.revoked and listed.get(i, facility) == facility
        ]

    # -- nodes that were replaced ---------------------------------------------------------------

    def generation(self, facility: FacilityId) -> int:
        """Return which node keys of a facility stand: those of a lower generation were replaced."""
        return self._generations.get(facility, 0)

    def replace_nodes(self, facility: FacilityId, generation: int) -> bool:
        """Drop a facility's earlier nodes permanently; return whether it had any."""
        before = self.generation(facility)
        if generation <= before:
            return False
        self._generations[facility] = generation
        for node in list(self._nodes.get(facility, ())):
            if self._records[node].generation < generation:
                self.forget(node)
        return before > 0

    # -- nodes --------------------------------------------------------------------------------

    def check_newest(self, record: Record) -> None:
        """Check that a record can replace what is known of its node.

        Raises:
            Conflict: a later one is known, its facility has too many nodes, or another facility
                announced the same node.
        """
        if record.generation < self.generation(record.facility):
            raise Conflict("the facility has replaced this node")
        known = self._records.get(record.node)
        if known is not None and known.facility != record.facility:
            raise Conflict("another facility has announced this node as its own")
        if known is None and len(self._nodes.get(record.facility, ())) >= MAX_NODES:
            raise Conflict(f"a facility can announce at most {MAX_NODES} nodes")
        if known is not None and any(
            new < old for new, old in zip(record.issued_seconds, known.issued_seconds, strict=True)
        ):
            raise Conflict("a later announcement of this node is known: check the node's clock")

    def put(self, record: Record) -> bool:
        """Take a record; False if it only says again what is known."""
        known = self._records.get(record.node)
        if known is not None:
            del self._by_statements[sha256(known.statements)]
        self._by_statements[sha256(record.statements)] = record.node
        self._records[record.node] = record
        self._nodes[record.facility].add(record.node)
        is_same = known is not None and known.says_the_same(record)
        if not is_same:
            self._index(record)
        return not is_same

    def _index(self, record: Record) -> None:
        memberships = self._memberships.get(record.facility, {}).values()
        names = [m.invitation.display_name for m in memberships]
        self._search.put(record.node, (*names, *record.texts))

    def forget(self, node: NodeId) -> None:
        """Drop a node's record."""
        record = self._records.pop(node, None)
        if record is not None:
            del self._by_statements[sha256(record.statements)]
            self._search.remove(node)
            self._nodes[record.facility].discard(node)

    def expire(self, now: float) -> None:
        """Drop expired records of nodes that are not online."""
        for node, record in list(self._records.items()):
            if record.expires_time <= now and node not in self._online:
                self.forget(node)

    def record(self, node: NodeId) -> Record | None:
        """Return a node's record."""
        return self._records.get(node)

    def record_with(self, statements: bytes) -> Record | None:
        """Return the record that has these statements: they were verified when it came in."""
        node = self._by_statements.get(sha256(statements))
        return None if node is None else self._records[node]

    def records(self, facility: FacilityId) -> list[Record]:
        """Return a member's records; none for who is no member."""
        if not self.is_member(facility):
            return []
        return [self._records[node] for node in sorted(self._nodes.get(facility, ()))]

    def find(self, words: str, limit: int) -> list[Record]:
        """Return records that fit, best first."""
        found = (self._records[node] for node in self._search.find(words, 2 * limit))
        return [record for record in found if self.is_member(record.facility)][:limit]

    def may_meet(self, node: NodeId, relay: str) -> bool:
        """Whether a node says that it may be met at a relay."""
        record = self._records.get(node)
        return record is not None and record.relays.allows(relay)

    # -- presence -----------------------------------------------------------------------------

    def set_online(self, node: NodeId, process: str, *, is_online: bool) -> bool:
        """Note that a node has come to a process or gone; return whether that changes it."""
        was_online = self.is_online(node)
        if is_online:
            self._online[node].add(process)
        else:
            self._online[node].discard(process)
            if not self._online[node]:
                del self._online[node]
        return was_online is not self.is_online(node)

    def is_online(self, node: NodeId) -> bool:
        """Whether a node is at some process."""
        return node in self._online

    def nodes_at(self, process: str) -> list[NodeId]:
        """Return the nodes that are at a process."""
        return [node for node, processes in self._online.items() if process in processes]

    def online_nodes(self, facility: FacilityId) -> list[NodeId]:
        """Return the nodes of a confirmed facility that are online.

        Raises:
            NotFound: none is.
        """
        nodes = self._nodes.get(facility, ()) if self.is_confirmed(facility) else ()
        found = [n for n in sorted(nodes) if n in self._online]
        if not found:
            raise NotFound(f"no node of facility {facility.short()} is online")
        return found

    @property
    def counts(self) -> dict[str, int]:
        """Numbers for operators."""
        return {
            "facilities": sum(1 for f in self._memberships if self.is_member(f)),
            "nodes": len(self._records),
            "online": len(self._online),
        }
