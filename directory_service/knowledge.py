"""What the processes of a directory know together: kept in the database, told on the bus.

Each process holds all of it in memory and answers from there. What lasts is durable before it is
told; presence is told only, and goes with the process that has it.
"""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Protocol

import structlog
import trio
from emix.directory.v1 import directory_pb2 as pb

from directory_service.bus import Bus, News
from directory_service.registry import Record, Registry
from directory_service.storage import Storage, StoredMember, StoredNode
from directory_service.watching import LIST, Watchers
from node.documents.identity import Identity
from node.documents.lists import open_list
from node.documents.network import Membership, open_listing, open_membership
from node.domain.ids import FacilityId, NodeId
from node.domain.network import NetworkList
from node.errors import Conflict, DocumentError, NodeError, StoreError, first_error

log = structlog.get_logger()
_EXPIRE_SECONDS = 60.0
_ALIVE_SECONDS, _DEAD_SECONDS = 5.0, 20.0
_MOST_PROCESSES = 64
_NODES_OF_NEWS = 100  # PostgreSQL takes 8,000 bytes


class KeptList(Protocol):
    """A copy of the newest list, apart from the database."""

    def load(self) -> bytes:
        """Return it; empty for none."""

    def keep(self, encoded: bytes) -> None:
        """Keep it, durably; `NodeError` if not."""


class Knowledge:
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
        self.registry = registry
        self.watchers = Watchers()
        self._storage = storage
        self._bus = bus
        self._clock = clock
        self._process = secrets.token_hex(8)
        self._heard: dict[str, float] = {}
        self._is_behind = False
        self.is_database_away = False  # as the last word to the other processes found it
        self._gone: set[NodeId] = set()

    # -- what is learned here -----------------------------------------------------------------

    async def enroll(self, membership: Membership, *, is_listed: bool) -> None:
        """Use an invitation; durable once this returns.

        Whom the list names takes it back from whoever has used it: a directory that has lost
        what it knew may have let in a thief.

        Raises:
            Conflict: another facility has used it.
        """
        member = StoredMember(
            membership.invitation.id,
            membership.facility_id,
            membership.encoded,
            membership.joined_seconds,
        )
        if await self._storage.enroll(member, is_listed=is_listed):
            log.info("facility joined", facility=membership.facility_id.short())
            self._put_member(membership)
            await self._tell_others("member", [membership.facility_id.digest])
        else:
            await self.look_for(membership.facility_id)

    async def look_for(self, facility: FacilityId) -> None:
        """Take over a facility's memberships that another process has enrolled."""
        for member in await self._storage.members_of(facility):
            self._take_member(member)

    async def announce(self, record: Record, now: float) -> None:
        """Keep what a node announced; durable once this returns.

        Raises:
            Conflict: see `Registry.hold_newest`.
        """
        self.registry.hold_newest(record)
        known = self.registry.record(record.node)
        half = (now + record.expires_time) / 2
        if known is not None and known.says_the_same(record) and known.expires_time > half:
            return  # what is kept stands for long enough: a restart costs no writing for each node
        await self._storage.put_node(
            StoredNode(
                record.node,
                record.facility,
                record.statements,
                record.listing,
                int(now),
                int(record.expires_time),
            )
        )
        if self.registry.put(record):
            self._tell_record(record)
        await self._tell_others("node", [record.node.digest])

    async def _keep_list(self, encoded: bytes) -> None:
        """Keep the newest list in the home, too: a lost database must not forget it."""
        try:
            await trio.to_thread.run_sync(self._kept.keep, encoded)
        except NodeError as exc:
            log.warning("list not kept in the home", code=exc.code.value)

    async def publish(self, shown: NetworkList, encoded: bytes) -> None:
        """Put a newer list in force; durable once this returns.

        Raises:
            Conflict: one of that number or a later one is in force.
        """
        await self._storage.put_list(shown.number, encoded)
        self._take_list(shown, encoded)
        await self._keep_list(encoded)
        await self._tell_others("list")

    async def has_come(self, node: NodeId) -> None:
        """Note that a node watches here."""
        self._gone.discard(node)
        self._set_online(node, self._process, is_online=True)
        await self._tell_others("online", [node.digest])

    def has_gone(self, node: NodeId) -> None:
        """Note that a node watches here no longer, unless it does so anew."""
        if not self.watchers.is_watching(node):
            self._set_online(node, self._process, is_online=False)
            self._gone.add(node)  # told to the others with the next sign of life

    # -- what the database and the other processes know -----------------------------------------

    async def load(self) -> None:
        """Take over what the database holds: all of it, or what is new."""
        for member in await self._storage.members():
            with _left_out("member"):
                self._take_member(member)
            await trio.lowlevel.checkpoint()
        with _left_out("list"):
            await self._load_list()
        with _left_out("list in the home"):
            await self._load_kept_list()
        for node in await self._storage.nodes(self._clock()):
            with _left_out("node"):
                self._take_node(node)
            await trio.lowlevel.checkpoint()

    def _take_member(self, member: StoredMember) -> None:
        if self.registry.has_joined(member.facility, member.invitation):
            return
        self._put_member(open_membership(member.membership, self.registry.network_key))

    def _put_member(self, membership: Membership) -> None:
        other = self.registry.put_member(membership)
        if other is not None and not self.registry.is_member(other):
            log.warning("facility put out", facility=other.short())
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
        shown, latest = (
            open_list(encoded, self.registry.network_key, self._clock()),
            self.registry.view.latest,
        )
        if latest is None or shown.number > latest.number:
            log.warning("list brought back from the home", number=shown.number)
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
            self.registry.hold_newest(record)
            if self.registry.put(record):
                self._tell_record(record)

    async def run(self) -> None:
        """Forget what has expired, and keep up with the other processes, for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._bus.run, self._take_news)
            nursery.start_soon(self._keep_alive)
            while True:
                await trio.sleep(_EXPIRE_SECONDS)
                self.registry.expire(self._clock())
                if self._is_behind:  # something could not be read: now, perhaps
                    self._is_behind = False
                    await self._take_news(None)

    # -- other processes ----------------------------------------------------------------------

    async def _keep_alive(self) -> None:
        while True:
            gone, self._gone = [n.digest for n in self._gone], set()
            for start in range(0, len(gone), _NODES_OF_NEWS):
                await self._tell_others("offline", gone[start : start + _NODES_OF_NEWS])
            await self._tell_others("alive")
            now = trio.current_time()
            for process in [p for p, t in self._heard.items() if now - t > _DEAD_SECONDS]:
                del self._heard[process]
                log.warning("a process has gone silent", process=process)
                for node in self.registry.nodes_at(process):
                    self._set_online(node, process, is_online=False)
            await trio.sleep(_ALIVE_SECONDS)

    async def _tell_others(self, kind: str, ids: Sequence[bytes] = (), data: bytes = b"") -> None:
        """Tell the other processes; without them, they will look when they can."""
        try:
            await self._bus.tell(News(self._process, kind, tuple(ids), data))
        except StoreError:
            self.is_database_away = True
        else:
            self.is_database_away = False

    async def _take_news(self, news: News | None) -> None:
        try:
            await self._take(news)
        except* NodeError as group:
            log.warning("news not taken", code=first_error(group).code.value)
            self._is_behind = True
        except* Exception:  # a supervisor: what another process says does not end this one
            log.exception("news not taken")

    async def _take(self, news: News | None) -> None:
        if news is None:  # whatever was said is lost: look at everything
            await self.load()
            await self._tell_others("hello")
            await self._tell_presence()
            return
        if news.process == self._process:
            return
        if news.process not in self._heard and len(self._heard) >= _MOST_PROCESSES:
            return
        self._heard[news.process] = trio.current_time()
        match news.kind:
            case "member":
                await self.look_for(FacilityId(news.ids[0]))
            case "node":
                node = await self._storage.node(NodeId(news.ids[0]))
                if node is not None:
                    self._take_node(node)
            case "list":
                await self._load_list()
            case "online" | "offline":
                for digest in news.ids:
                    is_online = news.kind == "online"
                    self._set_online(NodeId(digest), news.process, is_online=is_online)
            case "tell":
                node_id, thing = NodeId(news.ids[0]), news.ids[1]
                self.watchers.tell(node_id, thing, pb.WatchResponse.FromString(news.data))
            case "hello":
                await self._tell_presence()

    async def _tell_presence(self) -> None:
        nodes = [node.digest for node in self.registry.nodes_at(self._process)]
        for start in range(0, len(nodes), _NODES_OF_NEWS):
            await self._tell_others("online", nodes[start : start + _NODES_OF_NEWS])

    # -- telling nodes --------------------------------------------------------------------------

    async def tell_node(self, node: NodeId, thing: bytes, news: pb.WatchResponse) -> None:
        """Tell a node, at whichever process it is.

        Raises:
            StoreError: it is at another one, and the way there is broken just now.
        """
        if self.watchers.is_watching(node):
            self.watchers.tell(node, thing, news)
            return
        ids = (node.digest, thing)
        await self._bus.tell(News(self._process, "tell", ids, news.SerializeToString()))

    def news(self, record: Record) -> pb.WatchResponse:
        """Return a record as news of its node."""
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
        log.info("list in force", number=shown.number, members=len(shown.members))
        self.watchers.tell_all("list", LIST)
        self.watchers.end_all_of(gone)

    def _set_online(self, node: NodeId, process: str, *, is_online: bool) -> None:
        is_news = self.registry.set_online(node, process, is_online=is_online)
        record = self.registry.record(node)
        if record is not None and is_news:
            self._tell_record(record)

    def _tell_record(self, record: Record) -> None:
        if self.registry.is_member(record.facility):
            self.watchers.tell_interested(record.facility, record.node, self.news(record))


@contextmanager
def _left_out(what: str) -> Iterator[None]:
    """Leave out what does not verify any more, or is another network's, and say so."""
    try:
        yield
    except DocumentError as exc:
        log.warning("left out of the database's", what=what, reason=str(exc))
