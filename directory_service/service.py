"""The directory service: every call verified, decided in memory, durable before it is answered."""

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
import trio
from emix.directory.v1 import directory_pb2 as pb
from google.protobuf.message import DecodeError

from directory_service.alarms import Alarms
from directory_service.registry import MAX_NODES, ListAnswer, Record
from directory_service.replica import Replica
from directory_service.sessions import SESSION_SECONDS, Session, Sessions, Spend
from directory_service.subscriptions import LIST
from node.crypto.digests import sha256
from node.crypto.signing import facility_id, verify
from node.documents.identity import Identity
from node.documents.lists import MAX_LIST_BYTES, open_list, open_list_key
from node.documents.network import Invitation, open_listing, open_membership
from node.documents.tickets import Ticket, TicketSigner
from node.domain.ids import FacilityId, NodeId
from node.domain.network import ListProblem
from node.errors import (
    Conflict,
    ForeignNode,
    NotFound,
    PeerBusy,
    PeerUntrusted,
    UsageError,
)
from node.rpc.limits import Places, RateLimit, caller_origin
from node.rpc.pieces import Gathering
from node.rpc.serving import Call, Handler, Service
from node.rpc.warden import Warden

log = structlog.get_logger()
_SERVICE = pb.DESCRIPTOR.services_by_name["DirectoryService"]
_OPEN_CALLS = {"GetNetwork", "GetChallenge", "Login", "Join", "Publish", "ListMemberships"}
"""Calls without a session: what they need they carry in themselves."""

_CONFIRMED_CALLS = {"Lookup", "Find", "AskDialBack", "AskTicket"}
"""Calls only for members in the newest list: a join letter, perhaps stolen, reveals no members."""

OPEN_CALLS_A_MINUTE_IN_ALL = 60_000
CALLS_A_MINUTE = 1200
"""Of one facility: of its nodes together, once they are logged in."""

COSTLY_CALLS_A_MINUTE = {"AskTicket": 120, "Find": 60, "Announce": 60}
"""Likewise, of what costs more: signatures, a search, records pushed to all who watch them."""

LISTS_AT_ONCE = 8
"""Whole lists on their way to one address; a node that has one of the last few needs none."""

_MOST_LISTS_AT_ONCE = 500
_LISTS_BROUGHT, _LISTS_BROUGHT_IN_ALL = 2, 8
"""Lists being received at once, from one address and in all. Anybody may publish one."""

ANNOUNCEMENT_SECONDS = 2 * 3600
_MOST_CALLS_A_MINUTE = 10**6
_AGAIN_SECONDS = (3000, 3600)
HEARTBEAT_SECONDS = 10.0
MOVE_SECONDS = 10
"""Within which nodes leave a process that is about to stop, at most."""

_MOVING_A_SECOND = 500
MAX_CALLS_OF_NODE = 16
MAX_INTERESTS = 1000
MAX_LOOKUPS = 100
_FOUND, _MOST_FOUND = 20, 100
_ANSWER_BYTES = 3 * 2**20


@dataclass(frozen=True, slots=True)
class _Shown:
    """Who has proved to be a node."""

    node: NodeId
    facility: FacilityId
    generation: int
    cert_expires: int


class DirectoryServer:
    """Handlers of the directory service."""

    def __init__(
        self,
        *,
        name: str,
        root_digest: bytes,
        replica: Replica,
        spend: Spend,
        sessions: Sessions,
        tickets: TicketSigner,
        relays: Sequence[str],
        alarms: Alarms,
        door: Warden,
        strangers_a_minute: int = 120,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._name = name
        self._root_digest = root_digest
        self._replica = replica
        self._registry = replica.registry
        self._spend = spend
        self._sessions = sessions
        self._tickets = tickets
        self._relays = relays
        self._alarms = alarms
        self._door = door
        self._places = Places(MAX_CALLS_OF_NODE)
        self._clock = clock
        self._watchers = replica.watchers
        self._is_leaving = False
        self._gathering = Gathering(
            MAX_LIST_BYTES, of_caller=_LISTS_BROUGHT, in_all=_LISTS_BROUGHT_IN_ALL
        )
        self._sending: Counter[str] = Counter()  # whole lists, by address
        self._costly = {
            name: RateLimit(calls, in_all=_MOST_CALLS_A_MINUTE)
            for name, calls in COSTLY_CALLS_A_MINUTE.items()
        }
        self._calls = RateLimit(CALLS_A_MINUTE, in_all=_MOST_CALLS_A_MINUTE)
        self._rate = RateLimit(strangers_a_minute, in_all=OPEN_CALLS_A_MINUTE_IN_ALL)

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

    # -- who calls ----------------------------------------------------------------------------

    async def guard_stranger(self, call: Call[Any]) -> None:
        """Admit any caller within its rate limit."""
        self._rate.count(caller_origin(call.address))

    async def _guard(self, call: Call[Any]) -> Session | None:
        if call.method.name in _OPEN_CALLS:
            await self.guard_stranger(call)
            return None
        session = self._sessions.check(call.metadata.get("emix-session", ""), self._clock())
        self._registry.membership(session.facility)  # not revoked meanwhile
        self._check_standing(session.facility, session.generation)
        call.account = str(session.node)
        self._door.met(call.address, call.account)
        self._places.take(call.account, call.on_end)
        self._calls.count(str(session.facility))
        if call.method.name in self._costly:
            self._costly[call.method.name].count(str(session.facility))
        if call.method.name in _CONFIRMED_CALLS:
            self._registry.check_confirmed(session.facility)
        return session

    async def _prove(self, proof: bytes, key: bytes, signature: bytes, *, is_known: bool) -> None:
        """Check that a key signed a challenge of this directory that was not used before.

        A failure with an unknown key raises no alarm, since anybody can make one up.
        """
        verify(key, "directory-login", proof, signature)
        try:
            stated = pb.LoginProof.FromString(proof)
        except DecodeError as exc:
            raise UsageError("the login proof is malformed") from exc
        if stated.root_digest != self._root_digest:
            if is_known:
                self._alarms.note("a login signed for another directory was presented")
            raise PeerUntrusted("the login was made for another directory")
        now = self._clock()
        expires = self._sessions.check_challenge(stated.challenge, now)
        if not await self._spend(stated.challenge, expires, now):
            if is_known:
                self._alarms.note("a login was replayed")
            raise PeerUntrusted("the challenge was used before")

    async def _identify(self, request: pb.LoginRequest) -> _Shown:
        """Return who shows itself. What is known already is not verified once more.

        Raises:
            PeerUntrusted: its facility has replaced it, or its certificate has expired.
        """
        known = self._registry.record_with(request.statements)
        if known is not None:
            shown = _Shown(known.node, known.facility, known.generation, known.cert_expires)
            await self._prove(request.proof, known.node_key, request.signature, is_known=True)
        else:
            identity = self._open_statements(request.statements)
            cert, facility = identity.cert, identity.facility_id
            shown = _Shown(identity.node_id, facility, cert.generation, cert.expires_seconds)
            is_known = self._registry.is_member(facility)
            await self._prove(request.proof, cert.node_key, request.signature, is_known=is_known)
        self._check_standing(shown.facility, shown.generation)
        if self._clock() >= shown.cert_expires:
            raise PeerUntrusted("the node's certificate has expired: `emix node renew`")
        return shown

    def _check_standing(self, facility: FacilityId, generation: int) -> None:
        """Check that a facility has not replaced a node, which proved that it has its key."""
        if generation < self._registry.generation(facility):
            self._alarms.note(f"a replaced node of facility {facility.short()} tried to log in")
            raise PeerUntrusted("the facility has replaced this node: its key is refused")

    def _open_statements(self, statements: bytes) -> Identity:
        """Return the verified identity in statements.

        A member that certified another facility's node raises an alarm.

        Raises:
            DocumentError: as `Identity.decode`, or the node's generation is in the future.
        """
        try:
            identity = Identity.decode(statements)
            identity.cert.check_taken(self._clock())
            return identity
        except ForeignNode as exc:
            if self._registry.is_member(facility_id(exc.facility_key)):  # else anybody's key
                self._alarms.note(str(exc))
            raise

    # -- handlers -----------------------------------------------------------------------------

    async def _get_network(self, call: Call[None]) -> pb.GetNetworkResponse:
        answer = self._list_for(call)
        if answer.whole:
            self._count_whole_list(call)
        epoch, number = self._registry.view.place
        return pb.GetNetworkResponse(
            network_key=self._registry.network_key,
            name=self._name,
            list=answer.whole,
            list_change=answer.change,
            list_is_known=answer.is_known,
            list_epoch=epoch,
            list_number=number,
            time_milliseconds=int(self._clock() * 1000),
            challenge=self._sessions.challenge(self._clock()),
        )

    def _list_for(self, call: Call[None]) -> ListAnswer:
        """Return the newest list in the form that the caller may have.

        A revoked facility has no session, and there may be no change from its list to the newest,
        for example after this directory was rebuilt. It gets the list by showing its membership.

        Raises:
            DocumentError: the caller shows something that is no membership of this network.
        """
        known, shown = call.request.known_list, call.request.membership
        is_confirmed = self._is_session_of_confirmed(call)
        answer = self._registry.list_for(known, may_have_whole=is_confirmed)
        if answer != ListAnswer() or not shown:
            return answer
        membership = open_membership(shown, self._registry.network_key)
        is_revoked = self._registry.is_revoked_by_list(membership)
        return self._registry.list_for(known, may_have_whole=is_revoked)

    def _is_session_of_confirmed(self, call: Call[None]) -> bool:
        """Whether a call that needs no session has one of a facility that the list names."""
        shown = call.metadata.get("emix-session", "")
        if not shown:
            return False
        session = self._sessions.check(shown, self._clock())
        return self._registry.is_confirmed(session.facility)

    def _count_whole_list(self, call: Call[Any]) -> None:
        """Bound the lists that wait to be sent: who asks and does not read fills the memory."""
        host = caller_origin(call.address)
        if self._sending[host] >= LISTS_AT_ONCE or self._sending.total() >= _MOST_LISTS_AT_ONCE:
            raise PeerBusy("too many lists are being sent; try again in a minute", 60)
        self._sending[host] += 1

        def sent() -> None:
            self._sending[host] -= 1
            if not self._sending[host]:
                del self._sending[host]

        call.on_end(sent)

    async def _get_challenge(self, _: Call[None]) -> pb.GetChallengeResponse:
        return pb.GetChallengeResponse(challenge=self._sessions.challenge(self._clock()))

    async def _login(self, call: Call[None]) -> pb.LoginResponse:
        self._check_open()
        shown = await self._identify(call.request)
        facility = shown.facility
        if not self._registry.is_member(facility):  # it joined at another process?
            await self._replica.look_for(facility)
        self._registry.membership(facility)
        now = self._clock()
        session = self._sessions.open(shown.node, facility, shown.generation, now)
        again = self._announced_seconds(call.request, now)
        return pb.LoginResponse(
            session=session,
            lifetime_seconds=SESSION_SECONDS,
            again_seconds=again,
            time_milliseconds=int(now * 1000),
        )

    def _announced_seconds(self, request: pb.LoginRequest, now: float) -> int:
        """Return for how long a node need not announce what it shows; 0 if it must at once."""
        known = self._registry.record_with(request.statements)
        if known is None or sha256(known.listing) != request.listing_digest:
            return 0
        left = int(known.expires_time - now) - ANNOUNCEMENT_SECONDS // 2
        return 0 if left <= 0 else random.randint(*_AGAIN_SECONDS) * left // ANNOUNCEMENT_SECONDS  # noqa: S311

    async def _join(self, call: Call[None]) -> pb.JoinResponse:
        facility = (await self._identify(call.request.login)).facility
        membership = open_membership(call.request.membership, self._registry.network_key)
        invitation = membership.invitation
        if membership.facility_id != facility:
            raise PeerUntrusted("the invitation was used for another facility than the caller's")
        if invitation.id in self._registry.view.revoked:
            raise PeerUntrusted("the invitation was revoked")
        latest = self._registry.view.latest
        listed = latest.members.get(invitation.id) if latest else None
        if listed not in (None, facility):
            self._note_second_use(invitation)
            raise Conflict("another facility used the invitation; ask the network for a new one")
        # A facility in the network's list is a member, even if this directory has lost its data.
        is_known = listed is not None or self._registry.has_joined(facility, invitation.id)
        if self._clock() >= invitation.expires_seconds and not is_known:
            raise PeerUntrusted("the invitation has expired; ask the network for a new one")
        try:
            await self._replica.enroll(membership, is_listed=listed is not None)
        except Conflict:
            self._note_second_use(invitation)
            raise
        return pb.JoinResponse()

    def _note_second_use(self, invitation: Invitation) -> None:
        self._alarms.note(
            f"a second facility presented the letter of {invitation.display_name}, which another"
            " has used: the letter was leaked"
        )

    async def _announce(self, call: Call[Session]) -> pb.AnnounceResponse:
        session = call.caller
        identity = self._open_statements(call.request.statements)
        if (identity.node_id, identity.facility_id) != (session.node, session.facility):
            raise PeerUntrusted("a node can announce only itself")
        listing = open_listing(call.request.listing, identity)
        known = self._registry.record(identity.node_id)
        if known is not None and known.facility != identity.facility_id:
            self._alarms.note(
                f"facility {identity.facility_id.short()} announced a node of facility"
                f" {known.facility.short()} as its own"
            )
        now = self._clock()
        record = Record.of(identity, listing, call.request.listing, now + ANNOUNCEMENT_SECONDS)
        await self._replica.announce(record, now)
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
            response = pb.WatchResponse(dial_back=caller.digest)
            await self._replica.notify_node(node, b"dial-back" + caller.digest, response)
        return pb.AskDialBackResponse()

    async def _ask_ticket(self, call: Call[Session]) -> pb.AskTicketResponse:
        session, request = call.caller, call.request
        [wanted] = _facilities([request.facility_id], 1)
        allowed = [r for r in self._relays if not request.relays or r in request.relays]
        if not allowed:
            raise NotFound("no relay of this network can be used")
        ways = [
            (node, relay)
            for node in self._registry.online_nodes(wanted)
            for relay in allowed
            if self._registry.may_meet(node, relay)
        ]
        if not ways:
            raise NotFound("no relay of this network may be used by both facilities")
        working = [way for way in ways if way[1] not in request.avoid]
        target, relay = random.choice(working or ways)  # noqa: S311  # spreads the load
        ticket = Ticket.new(relay, session.facility, session.node, wanted, target, self._clock())
        response = pb.WatchResponse(ticket=self._tickets.sign(ticket.other_half()))
        await self._replica.notify_node(ticket.target, b"ticket" + session.node.digest, response)
        return pb.AskTicketResponse(ticket=self._tickets.sign(ticket))

    async def _publish(self, call: Call[None]) -> pb.PublishResponse:
        _, encoded = await self._gathering.gather(call, lambda request: bytes(request.list))
        now = self._clock()
        shown = open_list(encoded, self._registry.network_key, now)
        view = self._registry.view
        following = view.after(shown, now)
        if following is ListProblem.EXPIRED:
            raise PeerUntrusted("the list has expired; sign a new one")
        if isinstance(following, ListProblem):
            epoch, number = view.place
            raise Conflict(
                f"list {number} of epoch {epoch} was published already; start the next one from it"
            )
        if following is not view:
            await self._replica.publish(shown, encoded)
        return pb.PublishResponse()

    async def _list_memberships(self, call: Call[None]) -> None:
        request = call.request
        key = self._registry.network_key
        if request.list_key_cert:
            latest, now = self._registry.view.latest, self._clock()
            key, _ = open_list_key(request.list_key_cert, key, now, latest=latest)
        await self._prove(request.proof, key, request.signature, is_known=True)
        await call.write(pb.ListMembershipsResponse(list=self._registry.encoded_list))
        for membership in list(self._registry.memberships()):
            await call.write(pb.ListMembershipsResponse(membership=membership.encoded))

    def say_move(self) -> None:
        """Ask all nodes that watch here to go to another process, spread over a moment."""
        self._is_leaving = True
        seconds = min(1 + self._watchers.total() // _MOVING_A_SECOND, MOVE_SECONDS)
        move = pb.WatchResponse(move=pb.Move(within_seconds=seconds))
        self._watchers.publish_to_all("move", move)

    def _check_open(self) -> None:
        if self._is_leaving:
            raise PeerBusy("this directory process is about to stop; connect to another", 2)

    # -- watching -----------------------------------------------------------------------------

    async def _watch(self, call: Call[Session]) -> None:
        self._check_open()
        session = call.caller
        interests = _facilities(call.request.facility_ids, MAX_INTERESTS)
        if self._watchers.count(session.facility, besides=session.node) >= MAX_NODES:
            raise PeerBusy("too many nodes of this facility watch", 60)
        try:
            with trio.move_on_after(max(session.expires_time - self._clock(), 0)):
                if await self._wait_confirmed(call):
                    await self._watch_changes(call, interests)
        finally:
            self._replica.has_gone(session.node)

    async def _wait_confirmed(self, call: Call[Session]) -> bool:
        """Wait until the newest list names the watcher; False if its stream must end before.

        Until then it gets heartbeats and the request to leave, nothing else.
        """
        session = call.caller
        if self._registry.is_confirmed(session.facility):
            return True
        with self._watchers.watching(session.node, session.facility, ()) as watcher:
            self._replica.has_come(session.node)
            while not self._registry.is_confirmed(session.facility):
                heard: Any = pb.WatchResponse()
                with trio.move_on_after(HEARTBEAT_SECONDS):
                    heard = await watcher.next()
                is_move = heard is not LIST and heard.WhichOneof("event") == "move"
                await call.write(heard if is_move else pb.WatchResponse())
            return True
        return False

    async def _watch_changes(self, call: Call[Session], interests: Sequence[FacilityId]) -> None:
        """Send changes to a confirmed member, until its stream must end."""
        session = call.caller
        with self._watchers.watching(session.node, session.facility, interests) as watcher:
            self._replica.has_come(session.node)
            watcher.publish("list", LIST)
            for facility in interests:
                for record in self._registry.records(facility):
                    watcher.publish(record.node, self._replica.response_of(record))
            known = call.request.known_list
            while True:
                response: Any = pb.WatchResponse()  # a heartbeat
                with trio.move_on_after(HEARTBEAT_SECONDS):
                    response = await watcher.next()
                if response is LIST:
                    response = self._list_response(known)
                    latest = self._registry.view.latest
                    known = latest.digest if latest else b""
                await call.write(response)

    def _list_response(self, known: bytes) -> pb.WatchResponse:
        answer = self._registry.list_for(known, may_have_whole=True)
        if answer.change:
            return pb.WatchResponse(list_change=answer.change)
        return pb.WatchResponse(list=answer.whole) if answer.whole else pb.WatchResponse()

    def _fitting(self, records: Sequence[Record]) -> list[pb.NodeRecord]:
        """Return as many records, in order, as fit a message."""
        wires: list[pb.NodeRecord] = []
        size = 0
        for wire in map(self._replica.wire, records):
            size += wire.ByteSize()
            if size > _ANSWER_BYTES:
                break
            wires.append(wire)
        return wires


def _facilities(ids: Any, most: int) -> list[FacilityId]:
    if len(ids) > most:
        raise UsageError(f"at most {most} facilities can be named in one call")
    try:
        return list(dict.fromkeys(map(FacilityId, ids)))
    except ValueError as exc:
        raise UsageError("a facility id has 32 bytes") from exc
