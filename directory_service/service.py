"""The directory service: every call verified, decided in memory, durable before it is answered."""

import random
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import structlog
import trio
from emix.directory.v1 import directory_pb2 as pb
from google.protobuf.message import DecodeError

from directory_service.bus import Bus, News
from directory_service.registry import MAX_NODES, Record, Registry
from directory_service.sessions import SESSION_SECONDS, Session, Sessions
from directory_service.storage import Storage, StoredMember, StoredNode
from directory_service.watching import Watchers
from node.crypto.signing import verify
from node.documents.identity import Identity
from node.documents.network import (
    Membership,
    open_list,
    open_list_key,
    open_listing,
    open_membership,
)
from node.documents.tickets import Ticket, TicketSigner
from node.domain.ids import FacilityId, NodeId
from node.domain.network import NetworkList
from node.errors import (
    Conflict,
    DocumentError,
    NodeError,
    NotFound,
    PeerBusy,
    PeerUntrusted,
    StoreError,
    UsageError,
    first_error,
)
from node.rpc.limits import RateLimit
from node.rpc.serving import Call, Handler, Service

log = structlog.get_logger()
_SERVICE = pb.DESCRIPTOR.services_by_name["DirectoryService"]
_OPEN_CALLS = {"GetNetwork", "GetChallenge", "Login", "Join", "Publish", "ListMemberships"}
"""Calls without a session: what they need they carry in themselves."""

OPEN_CALLS_A_MINUTE = 120
OPEN_CALLS_A_MINUTE_IN_ALL = 60_000
TICKETS_A_MINUTE = 120
"""Of one facility."""

ANNOUNCEMENT_SECONDS = 2 * 3600
_AGAIN_SECONDS = (3000, 3600)
HEARTBEAT_SECONDS = 10.0
MAX_INTERESTS = 1000
MAX_LOOKUPS = 100
_FOUND, _MOST_FOUND = 20, 100
_ANSWER_BYTES = 3 * 2**20
_EXPIRE_SECONDS = 60.0
_ALIVE_SECONDS, _DEAD_SECONDS = 5.0, 20.0
_MOST_PROCESSES = 64
_IDS_OF = {"member": 1, "node": 1, "tell": 2}
_NODES_OF_NEWS = 100  # PostgreSQL takes 8,000 bytes


class DirectoryServer:
    """Handlers of the directory service. `run` must run beside them."""

    def __init__(
        self,
        *,
        name: str,
        root_digest: bytes,
        registry: Registry,
        storage: Storage,
        sessions: Sessions,
        tickets: TicketSigner,
        relays: Sequence[str],
        bus: Bus,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._name = name
        self._root_digest = root_digest
        self._registry = registry
        self._storage = storage
        self._sessions = sessions
        self._tickets = tickets
        self._relays = relays
        self._bus = bus
        self._process = secrets.token_hex(8)
        self._heard: dict[str, float] = {}
        self._is_behind = False
        self._gone: set[NodeId] = set()
        self._clock = clock
        self._watchers = Watchers()
        self._tickets_asked = RateLimit(TICKETS_A_MINUTE, in_all=OPEN_CALLS_A_MINUTE_IN_ALL)
        self._rate = RateLimit(OPEN_CALLS_A_MINUTE, in_all=OPEN_CALLS_A_MINUTE_IN_ALL)

    def service(self) -> Service:
        """Return the service to serve."""
        handlers: dict[str, Handler] = {
            "GetNetwork": self._get_network,
            "GetChallenge": self._get_challenge,
            "Login": self._login,
            "Join": self._join,
            "Announce": self._announce,
            "Lookup": self._lookup,
            "Find": self._find,
            "Watch": self._watch,
            "AskDialBack": self._ask_dial_back,
            "AskTicket": self._ask_ticket,
            "Publish": self._publish,
            "ListMemberships": self._list_memberships,
        }
        return Service(_SERVICE, handlers, self._guard)

    async def load(self) -> None:
        """Take over what the database holds: all of it, or what is new."""
        for member in await self._storage.members():
            with _left_out("member"):
                self._take_member(member)
            await trio.lowlevel.checkpoint()
        with _left_out("list"):
            await self._load_list()
        for node in await self._storage.nodes(self._clock()):
            with _left_out("node"):
                self._take_node(node)
            await trio.lowlevel.checkpoint()

    def _take_member(self, member: StoredMember) -> None:
        if self._registry.has_joined(member.facility, member.invitation):
            return
        self._registry.put_member(open_membership(member.membership, self._registry.network_key))

    async def _load_list(self) -> None:
        encoded = await self._storage.latest_list()
        if encoded is None or encoded == self._registry.encoded_list:
            return
        shown = open_list(encoded, self._registry.network_key, self._clock())
        with suppress(Conflict):  # a later one has come here meanwhile
            self._take_list(shown, encoded)

    def _take_node(self, node: StoredNode) -> None:
        known = self._registry.record(node.node)
        if known is not None and (known.statements, known.listing) == (
            node.statements,
            node.listing,
        ):
            self._registry.put(replace(known, expires_time=node.expires_seconds))
            return
        identity = Identity.decode(node.statements)
        listing = open_listing(node.listing, identity)
        record = Record.of(identity, listing, node.listing, node.expires_seconds)
        with suppress(Conflict):  # a later one has come here meanwhile
            self._registry.hold_newest(record)
            if self._registry.put(record):
                self._tell_record(record)

    async def run(self) -> None:
        """Forget what has expired, and keep up with the other processes, for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._bus.run, self._take_news)
            nursery.start_soon(self._keep_alive)
            while True:
                await trio.sleep(_EXPIRE_SECONDS)
                self._registry.expire(self._clock())
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
                for node in self._registry.nodes_at(process):
                    self._set_online(node, process, is_online=False)
            await trio.sleep(_ALIVE_SECONDS)

    async def _tell_others(self, kind: str, ids: Sequence[bytes] = (), data: bytes = b"") -> None:
        """Tell the other processes; without them, they will look when they can."""
        with suppress(StoreError):
            await self._bus.tell(News(self._process, kind, tuple(ids), data))

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
        if len(self._heard) < _MOST_PROCESSES:
            self._heard[news.process] = trio.current_time()
        if len(news.ids) < _IDS_OF.get(news.kind, 0):
            return
        match news.kind:
            case "member":
                for member in await self._storage.members_of(FacilityId(news.ids[0])):
                    self._take_member(member)
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
                self._watchers.tell(node_id, thing, pb.WatchResponse.FromString(news.data))
            case "hello":
                await self._tell_presence()

    async def _tell_presence(self) -> None:
        nodes = [node.digest for node in self._registry.nodes_at(self._process)]
        for start in range(0, len(nodes), _NODES_OF_NEWS):
            await self._tell_others("online", nodes[start : start + _NODES_OF_NEWS])

    async def _tell_node(self, node: NodeId, thing: bytes, news: pb.WatchResponse) -> None:
        """Tell a node, at whichever process it is.

        Raises:
            StoreError: it is at another one, and the way there is broken just now.
        """
        if self._watchers.is_watching(node):
            self._watchers.tell(node, thing, news)
            return
        ids = (node.digest, thing)
        await self._bus.tell(News(self._process, "tell", ids, news.SerializeToString()))

    # -- who calls ----------------------------------------------------------------------------

    async def _guard(self, call: Call[Any]) -> Session | None:
        if call.method.name in _OPEN_CALLS:
            self._rate.count(call.address)
            return None
        session = self._sessions.check(call.metadata.get("emix-session", ""), self._clock())
        self._registry.membership(session.facility)  # not revoked meanwhile
        return session

    async def _prove(self, proof: bytes, key: bytes, signature: bytes) -> None:
        """Hold that a key signed a challenge of ours, made for this directory, used once."""
        verify(key, "directory-login", proof, signature)
        try:
            stated = pb.LoginProof.FromString(proof)
        except DecodeError as exc:
            raise UsageError("a login proof of another form") from exc
        if stated.root_digest != self._root_digest:
            raise PeerUntrusted("the login was made for another directory")
        now = self._clock()
        expires = self._sessions.check_challenge(stated.challenge, now)
        if not await self._storage.spend(stated.challenge, expires, now):
            raise PeerUntrusted("the challenge was used before")

    async def _identify(self, request: pb.LoginRequest) -> Identity:
        identity = Identity.decode(request.statements)
        node_key = identity.signer.verified_node_key()
        await self._prove(request.proof, node_key, request.signature)
        return identity

    # -- handlers -----------------------------------------------------------------------------

    async def _get_network(self, _: Call[None]) -> pb.GetNetworkResponse:
        return pb.GetNetworkResponse(
            network_key=self._registry.network_key,
            name=self._name,
            list=self._registry.encoded_list,
            time_milliseconds=int(self._clock() * 1000),
        )

    async def _get_challenge(self, _: Call[None]) -> pb.GetChallengeResponse:
        return pb.GetChallengeResponse(challenge=self._sessions.challenge(self._clock()))

    async def _login(self, call: Call[None]) -> pb.LoginResponse:
        identity = await self._identify(call.request)
        if not self._registry.is_member(identity.facility_id):  # it joined at another process?
            for member in await self._storage.members_of(identity.facility_id):
                self._take_member(member)
        self._registry.membership(identity.facility_id)
        session = self._sessions.open(identity.node_id, identity.facility_id, self._clock())
        return pb.LoginResponse(session=session, lifetime_seconds=SESSION_SECONDS)

    async def _join(self, call: Call[None]) -> pb.JoinResponse:
        identity = await self._identify(call.request.login)
        membership = open_membership(call.request.membership, self._registry.network_key)
        invitation = membership.invitation
        if membership.facility_id != identity.facility_id:
            raise PeerUntrusted("the invitation was used for another facility than the caller's")
        if invitation.id in self._registry.view.revoked:
            raise PeerUntrusted("the invitation was revoked")
        now = self._clock()
        stored = StoredMember(
            invitation.id, membership.facility_id, membership.encoded, membership.joined_seconds
        )
        is_known = any(m == membership for m in self._registry.memberships())
        if now >= invitation.expires_seconds and not is_known:
            raise PeerUntrusted("the invitation has expired; ask the network for a new one")
        if await self._storage.enroll(stored):
            log.info("facility joined", facility=membership.facility_id.short())
            self._registry.put_member(membership)
            await self._tell_others("member", [membership.facility_id.digest])
        return pb.JoinResponse()

    async def _announce(self, call: Call[Session]) -> pb.AnnounceResponse:
        session = call.caller
        identity = Identity.decode(call.request.statements)
        if (identity.node_id, identity.facility_id) != (session.node, session.facility):
            raise PeerUntrusted("a node announces itself only")
        listing = open_listing(call.request.listing, identity)
        now = self._clock()
        expires = now + ANNOUNCEMENT_SECONDS
        record = Record.of(identity, listing, call.request.listing, expires)
        self._registry.hold_newest(record)
        await self._storage.put_node(
            StoredNode(
                record.node,
                record.facility,
                record.statements,
                record.listing,
                int(now),
                int(expires),
            )
        )
        if self._registry.put(record):
            self._tell_record(record)
        await self._tell_others("node", [record.node.digest])
        return pb.AnnounceResponse(again_seconds=random.randint(*_AGAIN_SECONDS))  # noqa: S311

    async def _lookup(self, call: Call[Session]) -> pb.LookupResponse:
        asked = _facilities(call.request.facility_ids, MAX_LOOKUPS)
        records = [r for facility in asked for r in self._registry.records(facility)]
        return pb.LookupResponse(records=self._fitting(records))

    async def _find(self, call: Call[Session]) -> pb.FindResponse:
        limit = min(call.request.limit or _FOUND, _MOST_FOUND)
        found = self._registry.find(call.request.words, limit)
        return pb.FindResponse(records=self._fitting(found))

    async def _ask_dial_back(self, call: Call[Session]) -> pb.AskDialBackResponse:
        [wanted] = _facilities([call.request.facility_id], 1)
        caller = call.caller.facility
        for node in self._registry.online_nodes(wanted):
            news = pb.WatchResponse(dial_back=caller.digest)
            await self._tell_node(node, b"dial-back" + caller.digest, news)
        return pb.AskDialBackResponse()

    async def _ask_ticket(self, call: Call[Session]) -> pb.AskTicketResponse:
        session, request = call.caller, call.request
        [wanted] = _facilities([request.facility_id], 1)
        allowed = [r for r in self._relays if not request.relays or r in request.relays]
        if not allowed:
            raise NotFound("no relay of this network can be used")
        online = self._registry.online_nodes(wanted)
        self._tickets_asked.count(f"{session.facility}:0")
        ticket = Ticket.new(
            random.choice(allowed),  # noqa: S311  # spreads the load
            session.facility,
            session.node,
            wanted,
            random.choice(online),  # noqa: S311
            self._clock(),
        )
        news = pb.WatchResponse(ticket=self._tickets.sign(ticket.other_half()))
        await self._tell_node(ticket.target, b"ticket" + session.node.digest, news)
        return pb.AskTicketResponse(ticket=self._tickets.sign(ticket))

    async def _publish(self, call: Call[None]) -> pb.PublishResponse:
        encoded = call.request.list
        shown = open_list(encoded, self._registry.network_key, self._clock())
        latest = self._registry.view.latest
        if latest is not None and shown.number <= latest.number:
            if shown.digest == latest.digest:
                return pb.PublishResponse()
            raise Conflict(f"list {latest.number} is here already; sign the next one from it")
        await self._storage.put_list(shown.number, encoded)
        self._take_list(shown, encoded)
        await self._tell_others("list")
        return pb.PublishResponse()

    def _take_list(self, shown: NetworkList, encoded: bytes) -> None:
        gone = self._registry.take_list(shown, encoded)
        log.info("list in force", number=shown.number, members=len(shown.members))
        self._watchers.tell_all("list", pb.WatchResponse(list=encoded))
        self._watchers.end_all_of(gone)

    async def _list_memberships(self, call: Call[None]) -> None:
        request = call.request
        key = self._registry.network_key
        if request.list_key_cert:
            key = open_list_key(request.list_key_cert, key, self._clock())
        await self._prove(request.proof, key, request.signature)
        for membership in list(self._registry.memberships()):
            await call.write(pb.ListMembershipsResponse(membership=membership.encoded))

    # -- watching -----------------------------------------------------------------------------

    async def _watch(self, call: Call[Session]) -> None:
        session = call.caller
        interests = _facilities(call.request.facility_ids, MAX_INTERESTS)
        if self._watchers.count(session.facility, besides=session.node) >= MAX_NODES:
            raise PeerBusy("too many nodes of this facility watch", 60)
        try:
            with (
                self._watchers.watching(session.node, session.facility, interests) as watcher,
                trio.move_on_after(max(session.expires_time - self._clock(), 0)),
            ):
                await self._has_come(session.node, is_online=True)
                if self._registry.encoded_list:
                    watcher.tell("list", pb.WatchResponse(list=self._registry.encoded_list))
                for facility in interests:
                    for record in self._registry.records(facility):
                        watcher.tell(record.node, self._news(record))
                while True:
                    news: Any = pb.WatchResponse()  # a heartbeat
                    with trio.move_on_after(HEARTBEAT_SECONDS):
                        news = await watcher.next()
                    await call.write(news)
        finally:
            if not self._watchers.is_watching(session.node):
                self._set_online(session.node, self._process, is_online=False)
                self._gone.add(session.node)  # told to the others with the next sign of life

    async def _has_come(self, node: NodeId, *, is_online: bool) -> None:
        self._gone.discard(node)
        self._set_online(node, self._process, is_online=is_online)
        await self._tell_others("online" if is_online else "offline", [node.digest])

    def _set_online(self, node: NodeId, process: str, *, is_online: bool) -> None:
        is_news = self._registry.set_online(node, process, is_online=is_online)
        record = self._registry.record(node)
        if record is not None and is_news:
            self._tell_record(record)

    def _tell_record(self, record: Record) -> None:
        if not self._registry.is_member(record.facility):
            return
        self._watchers.tell_interested(record.facility, record.node, self._news(record))

    def _news(self, record: Record) -> pb.WatchResponse:
        return pb.WatchResponse(record=self._wire(record))

    def _fitting(self, records: Sequence[Record]) -> list[pb.NodeRecord]:
        """Return as many records, in order, as fit a message."""
        wires: list[pb.NodeRecord] = []
        size = 0
        for wire in map(self._wire, records):
            size += wire.ByteSize()
            if size > _ANSWER_BYTES:
                break
            wires.append(wire)
        return wires

    def _wire(self, record: Record) -> pb.NodeRecord:
        membership: Membership = self._registry.membership(record.facility)
        return pb.NodeRecord(
            statements=record.statements,
            listing=record.listing,
            membership=membership.encoded,
            online=self._registry.is_online(record.node),
        )


@contextmanager
def _left_out(what: str) -> Iterator[None]:
    """Leave out what does not verify any more, or is another network's, and say so."""
    try:
        yield
    except DocumentError as exc:
        log.warning("left out of the database's", what=what, reason=str(exc))


def _facilities(ids: Any, most: int) -> list[FacilityId]:
    if len(ids) > most:
        raise UsageError(f"at most {most} facilities can be named in one call")
    try:
        return list(dict.fromkeys(map(FacilityId, ids)))
    except ValueError as exc:
        raise UsageError("a facility id has 32 bytes") from exc
