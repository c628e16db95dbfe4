"""A directory's durable data, on either database: members, nodes, lists, used challenges.

There is one implementation for two engines (`directory_service.sqlite`,
`directory_service.postgres`), because both understand the little SQL that is needed. Each value is
a signed document, an id or a time. No column can hold patient or study data; a test reads both
schemas to ensure that.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from directory_service.bus import BusMessage
from node.domain.ids import FacilityId, InvitationId, NodeId
from node.domain.network import NO_LIST, ListPlace
from node.errors import Conflict

T = TypeVar("T")

SCHEMA: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE members (
            invitation BYTEA PRIMARY KEY,
            facility BYTEA NOT NULL,
            membership BYTEA NOT NULL,
            joined_seconds BIGINT NOT NULL
        )""",
        "CREATE INDEX members_by_facility ON members (facility)",
        """CREATE TABLE nodes (
            node BYTEA PRIMARY KEY,
            facility BYTEA NOT NULL,
            statements BYTEA NOT NULL,
            listing BYTEA NOT NULL,
            announced_seconds BIGINT NOT NULL,
            expires_seconds BIGINT NOT NULL
        )""",
        """CREATE TABLE generations (
            facility BYTEA PRIMARY KEY,
            generation BIGINT NOT NULL
        )""",
        """CREATE TABLE lists (
            epoch BIGINT NOT NULL,
            number BIGINT NOT NULL,
            list BYTEA NOT NULL,
            PRIMARY KEY (epoch, number)
        )""",
        """CREATE TABLE spent (
            challenge BYTEA PRIMARY KEY,
            expires_seconds BIGINT NOT NULL
        )""",
        "CREATE INDEX spent_by_time ON spent (expires_seconds)",
    ),
)
"""Numbered steps; each runs once. Never edit one that was released: add another."""

_KEPT_LISTS = 10
_CLOCKS_SECONDS = 3600
"""By how much the processes' clocks may differ: expired rows are kept for so long."""

_LATE_SECONDS = 300
"""The allowance for clock differences when polling for rows that others have just written."""


class Transaction(Protocol):
    """A transaction on a database."""

    def execute(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement with `?` for values; return its rows, if it has any."""


class Engine(Protocol):
    """A database."""

    async def run(self, work: Callable[[Transaction], T], message: BusMessage | None = None) -> T:
        """Run `work` in one transaction; durable once this returns.

        Args:
            work: What to do.
            message: The message to the other processes, sent atomically with the commit: never one
                without the other.

        Raises:
            StoreError: the database failed, or is away; nothing was kept, as far as is known.
        """

    async def aclose(self) -> None:
        """Close it."""


@dataclass(frozen=True, slots=True)
class StoredMember:
    """A facility that came in with an invitation; `membership` is the signed document."""

    invitation: InvitationId
    facility: FacilityId
    membership: bytes
    joined_seconds: int


@dataclass(frozen=True, slots=True)
class StoredNode:
    """A node that announced itself; statements and listing are signed documents."""

    node: NodeId
    facility: FacilityId
    statements: bytes
    listing: bytes
    announced_seconds: int
    expires_seconds: int


class Storage:
    """The directory's repository. All of it is durable once it returns."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def enroll(
        self, member: StoredMember, *, is_listed: bool = False, message: BusMessage | None = None
    ) -> bool:
        """Use an invitation; False if this facility had used it before.

        Args:
            member: The facility that uses it.
            is_listed: Whether the network's list names the facility for that invitation; then it
                replaces any other user of it.
            message: As in `Engine.run`.

        Raises:
            Conflict: another facility has used it.
        """

        def work(tx: Transaction) -> bool:
            added = tx.execute(
                "INSERT INTO members (invitation, facility, membership, joined_seconds)"
                " VALUES (?, ?, ?, ?) ON CONFLICT (invitation) DO NOTHING RETURNING 1",
                member.invitation.digest,
                member.facility.digest,
                member.membership,
                member.joined_seconds,
            )
            if added:
                return True
            sql = "SELECT facility FROM members WHERE invitation = ?"
            [(facility,)] = tx.execute(sql, member.invitation.digest)
            if bytes(facility) == member.facility.digest:
                return False
            if not is_listed:
                raise Conflict("another facility used the invitation; ask for a new one")
            tx.execute(
                "UPDATE members SET facility = ?, membership = ?, joined_seconds = ?"
                " WHERE invitation = ?",
                member.facility.digest,
                member.membership,
                member.joined_seconds,
                member.invitation.digest,
            )
            return True

        return await self._engine.run(work, message)

    async def members(self) -> list[StoredMember]:
        """Return all members, in the order in which they came."""
        rows = await self._engine.run(
            lambda tx: tx.execute(f"{_MEMBERS} ORDER BY joined_seconds, invitation")
        )
        return [_member(row) for row in rows]

    async def members_of(self, facility: FacilityId) -> list[StoredMember]:
        """Return the memberships of one facility."""
        rows = await self._engine.run(
            lambda tx: tx.execute(f"{_MEMBERS} WHERE facility = ?", facility.digest)
        )
        return [_member(row) for row in rows]

    async def put_node(
        self, node: StoredNode, message: BusMessage | None = None, *, generation: int = 0
    ) -> None:
        """Keep a node's announcement in place of its earlier one.

        This permanently replaces its facility's nodes of lower generations.
        """

        def work(tx: Transaction) -> None:
            tx.execute(
                "INSERT INTO nodes (node, facility, statements, listing, announced_seconds,"
                " expires_seconds) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (node) DO UPDATE SET"
                " facility = excluded.facility, statements = excluded.statements,"
                " listing = excluded.listing, announced_seconds = excluded.announced_seconds,"
                " expires_seconds = excluded.expires_seconds",
                node.node.digest,
                node.facility.digest,
                node.statements,
                node.listing,
                node.announced_seconds,
                node.expires_seconds,
            )
            tx.execute(
                "INSERT INTO generations (facility, generation) VALUES (?, ?)"
                " ON CONFLICT (facility) DO UPDATE SET generation = excluded.generation"
                " WHERE generations.generation < excluded.generation",
                node.facility.digest,
                generation,
            )

        await self._engine.run(work, message)

    async def nodes(self, now: float, *, since: float = 0.0) -> list[StoredNode]:
        """Return the nodes whose announcement stands; forget those that went long ago.

        Args:
            now: The present.
            since: Only those that announced themselves later, by whichever process's clock.
        """

        def work(tx: Transaction) -> list[tuple[Any, ...]]:
            gone = int(now) - _CLOCKS_SECONDS
            tx.execute("DELETE FROM nodes WHERE expires_seconds <= ?", gone)
            sql = f"{_NODES} WHERE expires_seconds > ? AND announced_seconds > ? ORDER BY node"
            return tx.execute(sql, int(now), int(since) - _LATE_SECONDS if since else -1)

        return [_node(row) for row in await self._engine.run(work)]

    async def counts(self) -> tuple[int, ListPlace]:
        """Return how many memberships there are, and where the newest list stands."""

        def work(tx: Transaction) -> tuple[int, ListPlace]:
            [(members,)] = tx.execute("SELECT COUNT(*) FROM members")
            return int(members), _latest_place(tx)

        return await self._engine.run(work)

    async def node(self, node: NodeId) -> StoredNode | None:
        """Return what one node announced last."""
        rows = await self._engine.run(
            lambda tx: tx.execute(f"{_NODES} WHERE node = ?", node.digest)
        )
        return _node(rows[0]) if rows else None

    async def generations(self) -> dict[FacilityId, int]:
        """Return which generation of nodes stands, of each facility that ever announced one."""
        rows = await self._engine.run(
            lambda tx: tx.execute("SELECT facility, generation FROM generations")
        )
        return {FacilityId(bytes(facility)): int(generation) for facility, generation in rows}

    async def put_list(
        self, place: ListPlace, encoded: bytes, message: BusMessage | None = None
    ) -> None:
        """Keep a newer list.

        Raises:
            Conflict: one of that place or a later one is kept already.
        """

        def work(tx: Transaction) -> None:
            latest, (epoch, number) = _latest_place(tx), place
            added = latest < place and tx.execute(
                "INSERT INTO lists (epoch, number, list) VALUES (?, ?, ?)"
                " ON CONFLICT (epoch, number) DO NOTHING RETURNING 1",
                epoch,
                number,
                encoded,
            )
            if not added:
                raise Conflict(
                    f"list {latest[1]} of epoch {latest[0]} was published already; start the next"
                    " one from it"
                )
            tx.execute(
                "DELETE FROM lists WHERE epoch < ? OR number <= ?", epoch, number - _KEPT_LISTS
            )

        await self._engine.run(work, message)

    async def latest_list(self) -> bytes | None:
        """Return the newest list; None before the first."""
        sql = "SELECT list FROM lists ORDER BY epoch DESC, number DESC LIMIT 1"
        rows = await self._engine.run(lambda tx: tx.execute(sql))
        return bytes(rows[0][0]) if rows else None

    async def spend(self, challenge: bytes, expires: float, now: float) -> bool:
        """Use up a login challenge; False if it was used before, by whichever process."""

        def work(tx: Transaction) -> Sequence[object]:
            tx.execute("DELETE FROM spent WHERE expires_seconds < ?", int(now) - _CLOCKS_SECONDS)
            return tx.execute(
                "INSERT INTO spent (challenge, expires_seconds) VALUES (?, ?)"
                " ON CONFLICT (challenge) DO NOTHING RETURNING 1",
                challenge,
                int(expires) + 1,
            )

        return bool(await self._engine.run(work))

    async def aclose(self) -> None:
        """Close the database."""
        await self._engine.aclose()


_MEMBERS = "SELECT invitation, facility, membership, joined_seconds FROM members"
_NODES = "SELECT node, facility, statements, listing, announced_seconds, expires_seconds FROM nodes"


def _latest_place(tx: Transaction) -> ListPlace:
    sql = "SELECT epoch, number FROM lists ORDER BY epoch DESC, number DESC LIMIT 1"
    found = tx.execute(sql)
    return (int(found[0][0]), int(found[0][1])) if found else NO_LIST


def _member(row: tuple[Any, ...]) -> StoredMember:
    invitation, facility, membership, joined = row
    return StoredMember(
        InvitationId(bytes(invitation)), FacilityId(bytes(facility)), bytes(membership), joined
    )


def _node(row: tuple[Any, ...]) -> StoredNode:
    node, facility, statements, listing, announced, expires = row
    return StoredNode(
        NodeId(bytes(node)),
        FacilityId(bytes(facility)),
        bytes(statements),
        bytes(listing),
        announced,
        expires,
    )
