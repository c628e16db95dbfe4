"""The replicated state of a directory's processes: kept in the database, announced on the bus.

Each process has all of it in memory and answers from there. A durable change is announced in the
transaction that keeps it; since messages can be lost, each process also polls the database.
Presence is replicated by `directory_service.presence`.
"""

import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Protocol

import structlog
import trio
from emix.directory.v1 import directory_pb2 as pb

from directory_service.bus import Bus, BusMessage
from directory_service.presence import Presence
from directory_service.registry import Record, Registry
from directory_service.storage import Storage, StoredMember, StoredNode
from directory_service.subscriptions import LIST, Subscriptions
from node.documents.identity import Identity
from node.documents.lists import open_list
from node.documents.network import Membership, open_listing, open_membership
from node.domain.ids import FacilityId, NodeId
from node.domain.network import NetworkList
from node.errors import Conflict, DocumentError, NodeError, StoreError, first_error

log = structlog.get_logger()
EXPIRE_SECONDS = 60.0
LOOK_SECONDS = 20.0
"""How often a process polls for missed changes: a revocation is known within a minute."""


class KeptList(Protocol):
    """A copy of the newest list, apart from the database."""

    def load(self) -> bytes:
        """Return it; empty for none."""

    def keep(self, encoded: bytes) -> None:
        """Keep it, durably; `NodeError` if not."""


class Replica:
    """Members, lists, nodes and presence. `run` must run beside all use."""

    def __init__(
        self,
        registry: Registry,
        storage: Storage,
        bus: Bus,
        clock: Callable[[], float],
        kept: KeptList,
    ) -> None:
        self._kept = kept
        self._keeping = trio.Lock()
        self.registry = registry
        self.watchers = Subscriptions()
        self._storage = storage
        self._bus = bus
        self._clock = clock
        self._process = secrets.token_hex(8)
        self._presence = Presence(self._process, registry, self._published, self._presence_changed)
        self._is_behind = False
        self._looked_time = 0.0
        self._looked_members = 0
        self.is_database_away = False  # as it was asked last

    # -- what is learned here -----------------------------------------------------------------

    async def enroll(self, membership: Membership, *, is_listed: bool) -> None:
        """Use an invitation; durable once this returns.

        The facility that the list names for it replaces any other user of it: a directory that has
        lost its data may have admitted a thief.

        Raises:
            Conflict: another facility has used it.
        """
        member = StoredMember(
            membership.invitation.id,
            membership.facility_id,
            membership.encoded,
            membership.joined_seconds,
        )
        message = BusMessage(self._process, "member", (membership.facility_id.digest,))
        with self._asking_database():
            is_new = await self._storage.enroll(member, is_listed=is_listed, message=message)
        if is_new:
            log.info("facility joined", facility=membership.facility_id.short())
            self._put_member(membership)
        else:
            await self.look_for(membership.facility_id)

    async def look_for(self, facility: FacilityId) -> None:
        """Take over a facility's memberships that another process has enrolled."""
        for member in await self._storage.members_of(facility):
            self._take_member(member)

    async def announce(self, record: Record, now: float) -> None:
        """Keep what a node announced; durable once this returns.

        Raises:
            Conflict: see `Registry.check_newest`.
        """
        self.registry.check_newest(record)
        known = self.registry.record(record.node)
        half = (now + record.expires_time) / 2
        if known is not None and known.says_the_same(record) and known.expires_time > half:
            return  # the stored announcement is valid long enough: no write per node at a restart
        kept = StoredNode(
            record.node,
            record.facility,
            record.statements,
            record.listing,
            int(now),
            int(record.expires_time),
        )
        with self._asking_database():
            message = BusMessage(self._process, "node", (record.node.digest,))
            await self._storage.put_node(kept, message, generation=record.generation)
        self._put_record(record)

    async def _keep_list(self, encoded: bytes) -> None:
        """Keep the newest list in the home, too: a lost database must not forget it."""
        async with self._keeping:  # or an older one could come last
            if encoded != self.registry.encoded_list:
                return
            try:
                await trio.to_thread.run_sync(self._kept.keep, encoded)
            except NodeError as exc:
                log.warning("list not kept in the home", code=exc.code.value)

    async def publish(self, shown: NetworkList, encoded: bytes) -> None:
        """Put a newer list in force, or back in force; durable once this returns.

        Raises:
            Conflict: one of that place or a later one is in force.
        """
        try:
            with self._asking_database():
                await self._storage.put_list(
                    shown.place, encoded, BusMessage(self._process, "list")
                )
        except Conflict:
            await self._load_list()  # of another process, which could not tell us perhaps
            raise
        self._take_list(shown, encoded)
        await self._keep_list(encoded)

    def has_come(self, node: NodeId) -> None:
        """Note that a node watches here."""
        self._presence.has_come(node)

    def has_gone(self, node: NodeId) -> None:
        """Note that a node watches here no longer, unless it does so anew."""
        if not self.watchers.is_watching(node):
            self._presence.has_gone(node)

    @contextmanager
    def _asking_database(self) -> Iterator[None]:
        """Note whether the database answers."""
        try:
            yield
        except StoreError:
            self.is_database_away = True
            raise
        self.is_database_away = False

    # -- what the database and the other processes know -----------------------------------------

    async def load(self) -> None:
        """Take over what the database holds: all of it, or what is new."""
        await self._load_members()
        for facility, generation in (await self._storage.generations()).items():
            self.registry.replace_nodes(facility, generation)
        with _left_out("list"):
            await self._load_list()
        with _left_out("list in the home"):
            await self._load_kept_list()
        await self._load_nodes()
        self._looked_time = self._clock()

    async def _load_members(self) -> None:
        members = await self._storage.members()
        self._looked_members = len(members)
        for member in members:
            with _left_out("member"):
                self._take_member(member)
            await trio.lowlevel.checkpoint()

    async def _load_nodes(self, since: float = 0.0) -> None:
        for node in await self._storage.nodes(self._clock(), since=since):
            with _left_out("node"):
                self._take_node(node)
            await trio.lowlevel.checkpoint()

    async def _look(self) -> None:
        """Poll the database for other processes' changes whose messages were lost."""
        now = self._clock()
        with self._asking_database():
            members, place = await self._storage.counts()
        if place > self.registry.view.place:
            with _left_out("list"):
                await self._load_list()
        if members != self._looked_members:
            await self._load_members()
        await self._load_nodes(since=self._looked_time)
        self._looked_time = now

    def _take_member(self, member: StoredMember) -> None:
        if self.registry.has_joined(member.facility, member.invitation):
            return
        self._put_member(open_membership(member.membership, self.registry.network_key))

    def _put_member(self, membership: Membership) -> None:
        other = self.registry.put_member(membership)
        for record in self.registry.records(membership.facility_id):
            self._publish_record(record)  # it came before its membership
        if other is not None and not self.registry.is_member(other):
            log.warning("facility no longer a member", facility=other.short())
            self.watchers.end_all_of([other])

    async def _load_list(self) -> None:
        encoded = await self._storage.latest_list()
        if encoded is None or encoded == self.registry.encoded_list:
            return
        shown = open_list(encoded, self.registry.network_key, self._clock())
        with suppress(Conflict):  # a later one has come here meanwhile
            self._take_list(shown, encoded)
            await self._keep_list(encoded)

    async def _load_kept_list(self) -> None:
        """Bring back the home's list to a database that has none, or an older one."""
        encoded = await trio.to_thread.run_sync(self._kept.load)
        if not encoded:
            return
        shown = open_list(encoded, self.registry.network_key, self._clock())
        if shown.place > self.registry.view.place:
            log.warning("list restored from the home", number=shown.number)
            with suppress(Conflict):  # another process was first
                await self.publish(shown, encoded)

    def _take_node(self, node: StoredNode) -> None:
        known = self.registry.record(node.node)
        if known is not None and (known.statements, known.listing) == (
            node.statements,
            node.listing,
        ):  # not verified once more
            self.registry.put(replace(known, expires_time=node.expires_seconds))
            return
        identity = Identity.decode(node.statements)
        listing = open_listing(node.listing, identity)
        record = Record.of(identity, listing, node.listing, node.expires_seconds)
        with suppress(Conflict):  # a later one has come here meanwhile
            self.registry.check_newest(record)
            self._put_record(record)

    def _put_record(self, record: Record) -> None:
        if self.registry.replace_nodes(record.facility, record.generation):
            log.warning("node replaced", facility=record.facility.short())
            self.watchers.end_all_of([record.facility])  # the new one watches again
        if self.registry.put(record):
            self._publish_record(record)

    async def run(self) -> None:
        """Forget what has expired, and keep up with the other processes, for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._bus.run, self._take_message)
            if self._bus.is_shared:
                nursery.start_soon(self._presence.run)
                nursery.start_soon(self._keep_looking)
            while True:
                await trio.sleep(EXPIRE_SECONDS)
                self.registry.expire(self._clock())

    # -- other processes ----------------------------------------------------------------------

    async def _keep_looking(self) -> None:
        while True:
            await trio.sleep(LOOK_SECONDS)
            is_behind, self._is_behind = self._is_behind, False
            await self._guarded(self.load if is_behind else self._look)

    async def _published(self, message: BusMessage) -> bool:
        """Send a message to the other processes; if the bus is down, they find it by polling."""
        try:
            with self._asking_database():
                await self._bus.publish(message)
        except StoreError:
            return False
        return True

    async def _take_message(self, message: BusMessage | None) -> None:
        await self._guarded(lambda: self._take(message))

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        """Handle a message of another process; no error in it ends this process."""
        try:
            await work()
        except* NodeError as group:
            log.warning("notification not applied", code=first_error(group).code.value)
            self._is_behind = True
        except* Exception:  # a supervisor: what another process says does not end this one
            log.exception("notification not applied")

    async def _take(self, message: BusMessage | None) -> None:
        if message is None:  # whatever was said is lost: look at everything
            await self.load()
            self._presence.publish_all()
            await self._presence.ask_all()
            return
        if message.process == self._process or not await self._presence.take(message):
            return
        match message.kind:
            case "member":
                await self.look_for(FacilityId(message.ids[0]))
            case "node":
                node = await self._storage.node(NodeId(message.ids[0]))
                if node is not None:
                    self._take_node(node)
            case "list":
                await self._load_list()
            case "watch":
                node_id, thing = NodeId(message.ids[0]), message.ids[1]
                self.watchers.publish(node_id, thing, pb.WatchResponse.FromString(message.data))

    # -- notifying nodes -------------------------------------------------------------------------

    async def notify_node(self, node: NodeId, thing: bytes, response: pb.WatchResponse) -> None:
        """Notify a node, at whichever process it is.

        Raises:
            StoreError: it is at another one, and the way there is broken just now.
        """
        if self.watchers.is_watching(node):
            self.watchers.publish(node, thing, response)
            return
        ids = (node.digest, thing)
        await self._bus.publish(
            BusMessage(self._process, "watch", ids, response.SerializeToString())
        )

    def response_of(self, record: Record) -> pb.WatchResponse:
        """Return a record as a Watch message."""
        return pb.WatchResponse(record=self.wire(record))

    def wire(self, record: Record) -> pb.NodeRecord:
        """Return a member's record as nodes see it."""
        return pb.NodeRecord(
            statements=record.statements,
            listing=record.listing,
            membership=self.registry.membership(record.facility).encoded,
            online=self.registry.is_online(record.node),
        )

    def _take_list(self, shown: NetworkList, encoded: bytes) -> None:
        gone = self.registry.take_list(shown, encoded)
        epoch, number = shown.place
        log.info("list in force", epoch=epoch, number=number, members=len(shown.members))
        self.watchers.publish_to_all("list", LIST)
        self.watchers.end_all_of(gone)

    def _presence_changed(self, node: NodeId) -> None:
        record = self.registry.record(node)
        if record is not None:
            self._publish_record(record)

    def _publish_record(self, record: Record) -> None:
        if self.registry.is_member(record.facility):
            self.watchers.publish_to_interested(
                record.facility, record.node, self.response_of(record)
            )


@contextmanager
def _left_out(what: str) -> Iterator[None]:
    """Skip, and log, a stored item that does not verify any more or is another network's."""
    try:
        yield
    except DocumentError as exc:
        log.warning("invalid database entry left out", what=what, reason=str(exc))
