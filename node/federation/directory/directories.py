"""Directories on the wire: one supervisor a network, which logs in, announces, and watches.

While a directory is unreachable, the node continues with what it knows, and tries again, with
jitter, so that not all nodes return at once after a directory's restart. A directory that has lost
its data gets it back from its nodes: the newest list, and their memberships.
"""

import random
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import structlog
import trio
from emix.directory.v1 import directory_pb2 as pb

from node.crypto.certificates import DIRECTORY_NAME, fingerprint
from node.crypto.digests import sha256
from node.documents.identity import Identity
from node.documents.network import (
    JoinLetter,
    Listing,
    Membership,
    Network,
    Record,
    open_record,
    sign_listing,
)
from node.documents.signed import DocumentSigner
from node.domain.connections import ConnectionState, PeerWay
from node.domain.events import DialBackAsked, Publish, TicketShown
from node.domain.ids import FacilityId, NetworkId
from node.errors import (
    Conflict,
    DocumentError,
    NodeError,
    PeerTimeout,
    PeerUnreachable,
    PeerUntrusted,
    StoreError,
    first_error,
    ungrouped,
)
from node.federation.directory.lists import LARGEST_ANSWER, ListAuthority, Lists
from node.federation.routes.dialing import Dialer
from node.federation.routes.race import race
from node.rpc.bounds import Bound
from node.rpc.calling import KEEPALIVE_OPTIONS, Channel, open_channel
from node.rpc.credentials import client_credentials
from node.rpc.methods import method
from node.system import clock

log = structlog.get_logger()
_SERVICE = pb.DESCRIPTOR.services_by_name["DirectoryService"]
_GET_CHALLENGE = method(_SERVICE, "GetChallenge", pb.GetChallengeRequest, pb.GetChallengeResponse)
_LOGIN = method(_SERVICE, "Login", pb.LoginRequest, pb.LoginResponse)
_JOIN = method(_SERVICE, "Join", pb.JoinRequest, pb.JoinResponse)
_ANNOUNCE = method(_SERVICE, "Announce", pb.AnnounceRequest, pb.AnnounceResponse)
_RECORDS = Bound(LARGEST_ANSWER, fields=16 * 1024)
_LOOKUP = method(_SERVICE, "Lookup", pb.LookupRequest, pb.LookupResponse, answer=_RECORDS)
_FIND = method(_SERVICE, "Find", pb.FindRequest, pb.FindResponse, answer=_RECORDS)
_LIST_OR_RECORD = Bound(LARGEST_ANSWER)
_WATCH = method(_SERVICE, "Watch", pb.WatchRequest, pb.WatchResponse, answer=_LIST_OR_RECORD)
_ASK_TICKET = method(_SERVICE, "AskTicket", pb.AskTicketRequest, pb.AskTicketResponse)
_ASK_DIAL_BACK = method(_SERVICE, "AskDialBack", pb.AskDialBackRequest, pb.AskDialBackResponse)

CALL_SECONDS = 10.0
CONNECT_SECONDS = 8.0
SILENCE_SECONDS = 30.0
MAX_INTERESTS = 1000
_MOST_LOOKED_UP = 1000  # facilities have a few nodes each
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_CHALLENGES = 1000
_MOST_ANSWERING = 8


class Authority(ListAuthority, Protocol):
    """Verifies what directories show; `node.exchange.membership.authority` implements it."""

    async def accept_record(self, network_id: NetworkId, record: Record) -> None:
        """Accept a verified record."""


@dataclass
class DirectoryState:
    """The state of the connection to one directory."""

    state: ConnectionState = ConnectionState.WAITING
    endpoint: str = ""
    problem: str = ""
    session: "_Session | None" = field(default=None, repr=False)


@dataclass(frozen=True)
class _Session:
    channel: Channel
    metadata: tuple[tuple[str, str], ...]


class Directories:
    """All directories of this node. Run it for the life of the node."""

    def __init__(
        self,
        *,
        signer: DocumentSigner,
        statements: Callable[[], bytes],
        listing: Callable[[], Listing],
        interests: Callable[[], Sequence[FacilityId]],
        authority: Authority,
        publish: Publish,
        dialer: Dialer,
    ) -> None:
        """Prepare.

        Args:
            signer: Signs for this node.
            statements: Returns this node's present statements.
            listing: Returns how this facility wishes to be found.
            interests: Returns the facilities whose records this node needs.
            authority: Verifies what directories show.
            publish: Gets an event for each request to dial back and each relay ticket.
            dialer: Makes the connections.
        """
        self._authority = authority
        self._publish = publish
        self._dialer = dialer
        self._signer = signer
        self._statements = statements
        self._listing = listing
        self._interests = interests
        self._networks: dict[NetworkId, Network] = {}
        self._lists = Lists(self._network, authority)
        self._supervised: dict[NetworkId, trio.CancelScope] = {}
        self._states: dict[NetworkId, DirectoryState] = {}
        self._answering = 0
        self._challenges: deque[bytes] = deque(maxlen=_CHALLENGES)  # those signed of late
        self._changed = trio.Event()

    def _network(self, network: NetworkId) -> Network | None:
        return self._networks.get(network)

    def state(self, network: NetworkId) -> DirectoryState:
        """Return what is known of the way to a network's directory."""
        return self._states.setdefault(network, DirectoryState())

    def way(self, network: NetworkId) -> PeerWay:
        """Return the state of the connection to a network's directory, to be shown."""
        known = self.state(network)
        return PeerWay(known.state, endpoint=known.endpoint, problem=known.problem)

    def refresh(self, networks: Sequence[Network]) -> None:
        """Set the networks; `run` then starts and ends their supervisors."""
        self._networks = {network.id: network for network in networks}
        self._changed.set()

    async def run(self) -> None:
        """Supervise the directories of all networks, for ever."""
        async with trio.open_nursery() as nursery:
            while True:
                self._changed = trio.Event()
                for network_id in self._supervised.keys() - self._networks.keys():
                    self._supervised.pop(network_id).cancel()
                for network_id in self._networks.keys() - self._supervised.keys():
                    scope = self._supervised[network_id] = trio.CancelScope()
                    nursery.start_soon(self._supervise, network_id, scope)
                await self._changed.wait()

    # -- asked for ------------------------------------------------------------------------

    async def join(self, letter: JoinLetter, membership: Membership) -> None:
        """See `node.exchange.membership.networks.Directories.join`."""
        async with self._connected(letter.endpoints, letter.root_certificate) as (channel, _):
            login = await self._login_request(channel, letter.root_certificate)
            request = pb.JoinRequest(membership=membership.encoded, login=login)
            await channel.unary(_JOIN, request, timeout=CALL_SECONDS)

    async def find(self, network: Network, words: str, limit: int) -> Sequence[Record]:
        """See `node.exchange.membership.networks.Directories.find`."""
        session = self._session(network)
        request = pb.FindRequest(words=words, limit=limit)
        answer = await session.channel.unary(
            _FIND, request, timeout=CALL_SECONDS, metadata=session.metadata
        )
        return await self._verified(network, answer.records[:limit])

    async def lookup(self, network: Network, facilities: Sequence[FacilityId]) -> Sequence[Record]:
        """See `node.exchange.membership.networks.Directories.lookup`."""
        session = self._session(network)
        request = pb.LookupRequest(facility_ids=[f.digest for f in facilities])
        answer = await session.channel.unary(
            _LOOKUP, request, timeout=CALL_SECONDS, metadata=session.metadata
        )
        records = await self._verified(network, answer.records[:_MOST_LOOKED_UP])
        return [r for r in records if r.identity.facility_id in facilities]

    def expect_list(self, network: NetworkId) -> None:
        """See `node.exchange.membership.networks.Directories.expect_list`."""
        self._lists.expect(network)

    async def ask_dial_back(self, facility: FacilityId) -> bool:
        """Ask a facility to dial us, at every directory; return whether one passed it on."""
        request = pb.AskDialBackRequest(facility_id=facility.digest)
        passed_on = False
        for state in list(self._states.values()):
            session = state.session
            if session is None:
                continue
            try:
                await session.channel.unary(
                    _ASK_DIAL_BACK, request, timeout=CALL_SECONDS, metadata=session.metadata
                )
                passed_on = True
            except NodeError:
                continue  # it is not online there
        return passed_on

    async def ask_ticket(
        self, facility: FacilityId, relays: Sequence[str], avoid: Sequence[str]
    ) -> tuple[Network, bytes]:
        """Return our half of a ticket to a facility's node, from the first directory that has one.

        Args:
            facility: The facility to meet.
            relays: The relays to choose from; empty for any.
            avoid: Relays to use only if there is no other.

        Raises:
            NodeError: no directory gave one; the error is the last directory's.
        """
        request = pb.AskTicketRequest(facility_id=facility.digest, relays=relays, avoid=avoid)
        error: NodeError = PeerUnreachable("no directory is connected")
        for network_id, state in list(self._states.items()):
            session, network = state.session, self._networks.get(network_id)
            if session is None or network is None:
                continue
            try:
                answer = await session.channel.unary(
                    _ASK_TICKET, request, timeout=CALL_SECONDS, metadata=session.metadata
                )
                return network, answer.ticket
            except NodeError as exc:
                error = exc
        raise error

    def _session(self, network: Network) -> _Session:
        state = self.state(network.id)
        if state.session is None:
            raise PeerUnreachable(
                f"the directory of {network.name} is not reachable: {state.problem or 'connecting'}"
            )
        return state.session

    async def _verified(self, network: Network, wires: Sequence[pb.NodeRecord]) -> list[Record]:
        """Return those records that verify; the others raise an alarm."""
        found = []
        for wire in wires:
            record = await self._record(network, wire)
            if record is not None:
                found.append(record)
        return found

    async def _record(self, network: Network, wire: pb.NodeRecord) -> Record | None:
        try:
            record = open_record(
                wire.statements,
                wire.listing,
                wire.membership,
                network.network_key,
                is_online=wire.online,
            )
            record.identity.cert.check_taken(clock.now())
            return record
        except DocumentError as exc:
            problem = f"a record that failed verification: {exc}"
            await self._authority.report_forgery(network.id, problem)
            return None

    @asynccontextmanager
    async def _connected(
        self, endpoints: Sequence[str], root: bytes
    ) -> AsyncGenerator[tuple[Channel, str]]:
        """Connect to one of a directory's addresses: the first that answers, in random order."""
        credentials = client_credentials(None, [root])

        def opened(address: str) -> AbstractAsyncContextManager[Channel]:
            return open_channel(
                address,
                credentials=credentials,
                server_name=DIRECTORY_NAME,
                options=(*KEEPALIVE_OPTIONS, *self._dialer.grpc_options(address)),
                largest_answer=LARGEST_ANSWER,
            )

        try:
            shuffled = random.sample(endpoints, len(endpoints))
            won = await race(opened, shuffled, self._dialer.addresses)
        except PeerUnreachable as exc:
            raise PeerUnreachable(
                await self._dialer.objection(endpoints[0])
                or f"no directory answers at {', '.join(endpoints)}"
            ) from exc
        async with won:
            yield won.channel, won.endpoint

    # -- watching -------------------------------------------------------------------------

    async def _supervise(self, network_id: NetworkId, scope: trio.CancelScope) -> None:
        state = self.state(network_id)
        pause = _FIRST_PAUSE
        with scope:
            while True:
                error = await self._try_hold(network_id, state)
                if error is None:  # a session that ended in its time, or pins that changed
                    state.state, pause = ConnectionState.WAITING, _FIRST_PAUSE
                    await trio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  # jitter
                    continue
                if state.state is ConnectionState.CONNECTED:
                    pause = _FIRST_PAUSE
                state.session, state.problem = None, str(error)
                state.state = ConnectionState.UNREACHABLE
                await trio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  # jitter
                pause = min(pause * 2, _LONGEST_PAUSE)
        if self._supervised.get(network_id) in (scope, None):
            self._states.pop(network_id, None)

    async def _try_hold(self, network_id: NetworkId, state: DirectoryState) -> NodeError | None:
        """Connect and stay connected; return the error that ended it, or None."""
        error: NodeError | None = None
        try:
            await self._hold(self._networks[network_id], state)
        except* NodeError as group:
            error = first_error(group)
        except* Exception:  # a supervisor: a directory does not end the node
            log.exception("directory failed", network=network_id.short())
            error = NodeError("internal error; see the node's log")
        finally:
            state.session = None
        return error

    async def _hold(self, network: Network, state: DirectoryState) -> None:
        endpoints, root = network.endpoints, network.root_certificate
        async with self._connected(endpoints, root) as (channel, endpoint):
            state.endpoint = endpoint
            # Before the login, so that who was revoked learns why it is refused.
            challenge = await self._lists.compare(channel, network.id)
            answer = await self._log_in(channel, network, challenge)
            clock.CLOCK.heard(network.id, answer.time_milliseconds / 1000)
            session = _Session(channel, (("emix-session", answer.session),))
            with ungrouped():
                async with trio.open_nursery() as nursery:
                    again = float(answer.again_seconds) or await self._announce(session)
                    state.session, state.problem = session, ""
                    state.state = ConnectionState.CONNECTED
                    log.info("directory connected", network=network.id.short())
                    nursery.start_soon(self._keep_announcing, session, _within_bounds(again))
                    nursery.start_soon(
                        self._lists.keep_honest, channel, network.id, session.metadata
                    )
                    deadline = time.monotonic() + max(answer.lifetime_seconds, 60) - CALL_SECONDS
                    while await self._watch(network, session, deadline, nursery):  # noqa: ASYNC110
                        await trio.sleep(random.uniform(0.5, 1.5))  # noqa: S311  # jitter
                    nursery.cancel_scope.cancel()

    async def _log_in(
        self, channel: Channel, network: Network, challenge: bytes
    ) -> pb.LoginResponse:
        """Log in; at a directory that has forgotten us, show our membership once more."""
        root = network.root_certificate
        login = await self._login_request(channel, root, challenge)
        try:
            return await channel.unary(_LOGIN, login, timeout=CALL_SECONDS)
        except PeerUntrusted as refusal:
            login = await self._login_request(channel, root)
            request = pb.JoinRequest(membership=network.membership.encoded, login=login)
            try:
                await channel.unary(_JOIN, request, timeout=CALL_SECONDS)
            except PeerUntrusted:
                raise refusal from None  # the first refusal has the reason
            except Conflict:
                problem = "the directory has our invitation under another facility"
                await self._authority.report_forgery(network.id, problem)
                raise
            log.info("joined again", network=network.id.short())
        login = await self._login_request(channel, root)
        return await channel.unary(_LOGIN, login, timeout=CALL_SECONDS)

    async def _login_request(
        self, channel: Channel, root: bytes, challenge: bytes = b""
    ) -> pb.LoginRequest:
        if not challenge:
            asked = pb.GetChallengeRequest()
            challenge = (await channel.unary(_GET_CHALLENGE, asked, timeout=CALL_SECONDS)).challenge
        await self._check_fresh(challenge, root)
        proof = pb.LoginProof(
            challenge=challenge, root_digest=fingerprint(root)
        ).SerializeToString()
        statements, listing = self._announcement()
        return pb.LoginRequest(
            statements=statements,
            proof=proof,
            signature=self._signer.node_key.sign("directory-login", proof),
            listing_digest=sha256(listing),
        )

    async def _check_fresh(self, challenge: bytes, root: bytes) -> None:
        """Check that a challenge was not signed before; what it proved could be shown again."""
        if challenge in self._challenges:
            problem = "the directory reused a challenge"
            for network in self._networks.values():
                if network.root_certificate == root:
                    await self._authority.report_forgery(network.id, problem)
            raise PeerUntrusted(problem)
        self._challenges.append(challenge)

    def _announcement(self) -> tuple[bytes, bytes]:
        statements = self._statements()
        listing = sign_listing(self._signer.node_key, Identity.decode(statements), self._listing())
        return statements, listing

    async def _announce(self, session: _Session) -> float:
        statements, listing = self._announcement()
        answer = await session.channel.unary(
            _ANNOUNCE,
            pb.AnnounceRequest(statements=statements, listing=listing),
            timeout=CALL_SECONDS,
            metadata=session.metadata,
        )
        return float(answer.again_seconds)

    async def _keep_announcing(self, session: _Session, pause: float) -> None:
        while True:
            await trio.sleep(pause)
            try:
                pause = _within_bounds(await self._announce(session))
            except StoreError:  # its database is unavailable; our last announcement stands
                pause = _within_bounds(0)

    def _wanted(self) -> list[FacilityId]:
        return sorted(self._interests())[:MAX_INTERESTS]

    async def _watch(
        self, network: Network, session: _Session, deadline: float, nursery: trio.Nursery
    ) -> bool:
        """Process a directory's events; return whether to watch again, since interests changed.

        Dial-backs and tickets are handled in `nursery`, since they may call the directory.
        """
        interests = self._wanted()
        request = pb.WatchRequest(
            facility_ids=[f.digest for f in interests], known_list=self._lists.stated(network.id)
        )
        async with session.channel.stream(_WATCH, request, metadata=session.metadata) as stream:
            while (left := deadline - time.monotonic()) > 0 and self._wanted() == interests:
                with trio.move_on_after(min(left, SILENCE_SECONDS)) as waiting:
                    message = await stream.read()
                if waiting.cancelled_caught and left <= SILENCE_SECONDS:
                    break
                if waiting.cancelled_caught:
                    raise PeerTimeout("the directory has gone silent")
                if message is None:
                    raise PeerUnreachable("the directory ended the watch")
                match message.WhichOneof("event"):
                    case "list":
                        await self._lists.take_whole(network.id, message.list)
                    case "list_change":
                        await self._lists.take_change(
                            session.channel, network.id, message.list_change, session.metadata
                        )
                    case "record":
                        record = await self._record(network, message.record)
                        if record is not None and record.identity.facility_id in interests:
                            await self._authority.accept_record(network.id, record)
                    case "dial_back" if len(message.dial_back) == 32:
                        asked = DialBackAsked(FacilityId(message.dial_back))
                        nursery.start_soon(self._answer, partial(self._publish, asked))
                    case "ticket":
                        ticket = message.ticket
                        nursery.start_soon(self._answer, partial(self._go, network, ticket))
                    case "move":
                        log.info("directory asks this node to move", network=network.id.short())
                        seconds = min(message.move.within_seconds, 600)
                        leaving = time.monotonic() + seconds * random.random()  # noqa: S311
                        deadline = min(deadline, leaving)
        return time.monotonic() < deadline

    async def _answer(self, work: Callable[[], Awaitable[None]]) -> None:
        """Handle a peer's request; a few at a time, and errors do not end the connection."""
        if self._answering >= _MOST_ANSWERING:
            return  # whoever waits asks again
        self._answering += 1
        try:
            await work()
        except* NodeError as group:
            log.info("not answered", code=first_error(group).code.value)
        finally:
            self._answering -= 1

    async def _go(self, network: Network, ticket: bytes) -> None:
        try:
            await self._publish(TicketShown(network.id, ticket))
        except DocumentError as exc:
            problem = f"a relay ticket that does not verify: {exc}"
            await self._authority.report_forgery(network.id, problem)


def _within_bounds(seconds: float) -> float:
    """Return a time that a directory names, so that it cannot keep us busy or silent."""
    return min(max(seconds, 60.0), 3600.0)
