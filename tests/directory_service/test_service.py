"""The directory's own checks, over gRPC: who may log in, join, announce, ask, and be told."""

import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from emix.directory.v1 import directory_pb2 as pb

from directory_service import registry as registry_module
from directory_service import service as service_module
from directory_service.alarms import Alarms
from directory_service.bus import NoBus
from directory_service.home import ListFile
from directory_service.operator import OperatorKey
from directory_service.registry import Registry
from directory_service.replica import Replica
from directory_service.service import DirectoryServer
from directory_service.sessions import Sessions
from directory_service.sqlite import SqliteEngine
from directory_service.storage import Storage
from node.crypto.certificates import fingerprint, make_tls_identity
from node.crypto.digests import sha256
from node.crypto.keys import SealKey
from node.crypto.signing import SigningKey, node_id
from node.documents.identity import Identity, Profile, make_statements
from node.documents.lists import apply_change, open_list
from node.documents.network import Listing, Membership, claim, open_record, sign_listing
from node.documents.signed import Signer, certify_node
from node.documents.tickets import certify_tickets, open_ticket, read_ticket_signer
from node.domain.ids import FacilityId, InvitationId
from node.domain.relays import RelayPolicy
from node.errors import (
    BadSignature,
    Conflict,
    DocumentError,
    NodeError,
    NotFound,
    PeerBusy,
    PeerUntrusted,
    UsageError,
)
from node.rpc.bounds import Bound
from node.rpc.calling import Channel, Stream, open_channel
from node.rpc.methods import methods
from node.rpc.serving import serve
from node.rpc.warden import ConnectionBounds, Warden
from tests.support.loop import run

_ANSWER = Bound(4 * 2**20)
_METHODS = {
    m.name: m for m in methods(pb.DESCRIPTOR.services_by_name["DirectoryService"], answer=_ANSWER)
}
RELAYS = ("relay.example.org:443", "other.example.org:443")


class Facility:
    """A facility with one node, and what it says."""

    def __init__(
        self, name: str, key: SigningKey | None = None, node_key: SigningKey | None = None
    ) -> None:
        self.name = name
        self.key, self.node_key = key or SigningKey.new(), node_key or SigningKey.new()
        self.signer: Signer = certify_node(self.key, self.node_key, time.time())
        self.id: FacilityId = self.signer.facility_id
        self.relays = RelayPolicy()
        self.node_id = node_id(self.node_key.public)
        self._tls = make_tls_identity(self.node_id, time.time())

    def statements(self, issued: int | None = None) -> bytes:
        profile = Profile(self.name, ("h:1",), (), issued or int(time.time()))
        certificates = [self._tls.certificate_der]
        return make_statements(
            self.node_key, self.signer, certificates, SealKey.new().public, profile
        )

    def listing(self, city: str = "Helena") -> bytes:
        listing = Listing(city, ("CT",), issued_seconds=int(time.time()), relays=self.relays)
        return sign_listing(self.node_key, Identity.decode(self.statements()), listing)


class Client:
    """One caller's calls."""

    def __init__(self, channel: Channel, root: bytes) -> None:
        self._channel = channel
        self._root = root
        self.session = ""

    @property
    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (("emix-session", self.session),) if self.session else ()

    async def call(self, name: str, request: Any) -> Any:
        return await self._channel.unary(
            _METHODS[name], request, timeout=20, metadata=self._metadata
        )

    @asynccontextmanager
    async def watch(
        self, *interests: FacilityId, known_list: bytes = b""
    ) -> AsyncGenerator[Stream[Any, Any]]:
        ids = [f.digest for f in interests]
        request = pb.WatchRequest(facility_ids=ids, known_list=known_list)
        async with self._channel.stream(
            _METHODS["Watch"], request, metadata=self._metadata
        ) as stream:
            yield stream

    async def proof(self, facility: Facility, root: bytes | None = None) -> pb.LoginRequest:
        challenge = (await self.call("GetChallenge", pb.GetChallengeRequest())).challenge
        proof = pb.LoginProof(
            challenge=challenge, root_digest=fingerprint(root or self._root)
        ).SerializeToString()
        return pb.LoginRequest(
            statements=facility.statements(),
            proof=proof,
            signature=facility.node_key.sign("directory-login", proof),
        )

    async def join(self, facility: Facility, membership: Membership) -> None:
        login = await self.proof(facility)
        await self.call("Join", pb.JoinRequest(membership=membership.encoded, login=login))

    async def login(self, facility: Facility) -> None:
        self.session = (await self.call("Login", await self.proof(facility))).session

    async def announce(self, facility: Facility, city: str = "Helena") -> None:
        request = pb.AnnounceRequest(
            statements=facility.statements(), listing=facility.listing(city)
        )
        await self.call("Announce", request)


class World:
    """A directory that serves, and its operator."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.operator = OperatorKey.new("Montana", ("h:1",), time.time())
        self.alarms = Alarms()
        self.strangers_a_minute = 120
        self.late = 0.0  # how much later than now it is
        self._address = f"unix:{folder / 'directory.sock'}"
        self.encoded = b""

    def now(self) -> float:
        return time.time() + self.late

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[DirectoryServer]:
        key, tickets = bytes(32), SigningKey.new()
        certificate = certify_tickets(
            self.operator.key, tickets.public, RELAYS, time.time() + 10**6
        )
        storage = Storage(SqliteEngine(self._folder / "directory.db", key))
        registry = Registry(self.operator.network_key)
        replica = Replica(
            registry, storage, NoBus(), self.now, ListFile(self._folder / "newest.list")
        )
        server = DirectoryServer(
            name="Montana",
            root_digest=fingerprint(self.operator.root_certificate),
            replica=replica,
            spend=storage.spend,
            sessions=Sessions(key),
            tickets=read_ticket_signer(tickets, certificate),
            relays=RELAYS,
            alarms=self.alarms,
            door=Warden(ConnectionBounds(unknown_of_origin=64, unknown_seconds=30)),
            strangers_a_minute=self.strangers_a_minute,
            clock=self.now,
        )
        await replica.load()
        async with serve([server.service()], self._address):
            yield server
        await storage.aclose()

    @asynccontextmanager
    async def client(self) -> AsyncGenerator[Client]:
        async with open_channel(self._address, largest_answer=_ANSWER.size) as channel:
            yield Client(channel, self.operator.root_certificate)

    def membership(self, facility: Facility) -> Membership:
        letter = self.operator.invite(facility.name, time.time())
        return claim(letter, facility.signer.facility_key, time.time())

    async def sign(
        self, *members: Membership, revoked: frozenset[InvitationId] = frozenset()
    ) -> None:
        key, latest = self.operator.network_key, None
        if self.encoded:
            latest = open_list(self.encoded, key, time.time())
        self.encoded = encoded = self.operator.next_list(latest, members, revoked, time.time())
        async with self.client() as client:
            await client.call("Publish", pb.PublishRequest(list=encoded))


@asynccontextmanager
async def member(world: World, name: str) -> AsyncGenerator[tuple[Facility, Client, Membership]]:
    """A facility that has joined, was confirmed, logged in, and announced itself."""
    facility = Facility(name)
    membership = world.membership(facility)
    async with world.client() as client:
        await client.join(facility, membership)
        await world.sign(membership)
        await client.login(facility)
        await client.announce(facility)
        yield facility, client, membership


async def next_event(stream: Stream[Any, Any], kind: str) -> Any:
    with trio.fail_after(20):
        while True:
            message = await stream.read()
            assert message is not None
            if message.WhichOneof("event") == kind:
                return getattr(message, kind)


def test_login_is_refused_to_strangers_replays_and_what_was_made_for_others(
    tmp_path: Path,
) -> None:
    async def work() -> None:
        world = World(tmp_path)
        async with world.serving(), member(world, "A") as (a, client, _):
            stranger = Facility("stranger")
            with pytest.raises(PeerUntrusted, match="no member"):
                await client.call("Login", await client.proof(stranger))
            other_root = OperatorKey.new("Other", ("h:1",), time.time()).root_certificate
            own = await client.proof(stranger)
            for what in (await client.proof(stranger, other_root), own, own):
                with pytest.raises(PeerUntrusted):
                    await client.call("Login", what)
            assert world.alarms.texts() == []  # strangers raise none
            proof = await client.proof(a)
            await client.call("Login", proof)
            with pytest.raises(PeerUntrusted, match="used before"):
                await client.call("Login", proof)
            assert any("replayed" in text for text in world.alarms.texts())
            other_root = OperatorKey.new("Other", ("h:1",), time.time()).root_certificate
            with pytest.raises(PeerUntrusted, match="another directory"):
                await client.call("Login", await client.proof(a, other_root))
            assert any("another directory" in text for text in world.alarms.texts())
            proof = await client.proof(a)
            proof.signature = stranger.node_key.sign("directory-login", proof.proof)
            with pytest.raises(BadSignature):
                await client.call("Login", proof)
            proof = await client.proof(a)
            world.late = 61
            with pytest.raises(PeerUntrusted, match="expired"):
                await client.call("Login", proof)
            made_up = pb.LoginProof(
                challenge=secrets.token_bytes(56),
                root_digest=fingerprint(world.operator.root_certificate),
            ).SerializeToString()
            proof = pb.LoginRequest(
                statements=a.statements(),
                proof=made_up,
                signature=a.node_key.sign("directory-login", made_up),
            )
            with pytest.raises(PeerUntrusted, match="not of this directory"):
                await client.call("Login", proof)

    run(work)


def test_calls_need_a_session_of_a_member(tmp_path: Path) -> None:
    async def work() -> None:
        world = World(tmp_path)
        async with world.serving(), member(world, "A") as (a, client, membership):
            calls = {
                "Lookup": pb.LookupRequest(facility_ids=[a.id.digest]),
                "Find": pb.FindRequest(words="a"),
                "AskDialBack": pb.AskDialBackRequest(facility_id=a.id.digest),
                "AskTicket": pb.AskTicketRequest(facility_id=a.id.digest),
                "Announce": pb.AnnounceRequest(statements=a.statements(), listing=a.listing()),
            }
            session = client.session
            for name, request in calls.items():
                for wrong in ("", "nonsense", session[:-4] + "AAA="):
                    client.session = wrong
                    with pytest.raises(PeerUntrusted):
                        await client.call(name, request)
            client.session = session
            await client.call("Lookup", calls["Lookup"])
            world.late = 3601
            with pytest.raises(PeerUntrusted, match="expired"):
                await client.call("Lookup", calls["Lookup"])
            world.late = 0
            await world.sign(membership, revoked=frozenset({membership.invitation.id}))
            for name, request in calls.items():
                with pytest.raises(PeerUntrusted, match="revoked"):
                    await client.call(name, request)
            with pytest.raises(PeerUntrusted, match="revoked"):
                await client.login(a)

    run(work)


def test_invitation_is_for_its_own_facility_and_one_only(tmp_path: Path) -> None:
    async def work() -> None:
        world = World(tmp_path)
        async with world.serving() as server, world.client() as client:
            a, b = Facility("A"), Facility("B")
            letter = world.operator.invite("A", time.time())
            mine = claim(letter, a.signer.facility_key, time.time())
            with pytest.raises(PeerUntrusted, match="another facility"):
                await client.join(b, mine)
            outcomes: list[str] = []

            async def use(facility: Facility) -> None:
                theirs = claim(letter, facility.signer.facility_key, time.time())
                async with world.client() as own:
                    try:
                        await own.join(facility, theirs)
                    except Conflict:
                        outcomes.append("refused")
                    else:
                        outcomes.append("joined")

            async with trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(use, Facility("thief"))
            assert sorted(outcomes) == ["joined"] + ["refused"] * 49
            assert server._registry.counts["facilities"] == 1
            [alarm] = world.alarms.texts()
            assert "the letter of A" in alarm
            assert "49 times" in alarm
            late = world.operator.invite("B", time.time())
            theirs = claim(late, b.signer.facility_key, time.time())
            world.late = 72 * 3600 + 1
            with pytest.raises(PeerUntrusted, match="expired"):
                await client.join(b, theirs)
            world.late = 0
            await world.sign(revoked=frozenset({late.invitation.id}))
            with pytest.raises(PeerUntrusted, match="revoked"):
                await client.join(b, theirs)
            forged = OperatorKey.new("Other", ("h:1",), time.time()).invite("B", time.time())
            with pytest.raises(BadSignature):
                await client.join(b, claim(forged, b.signer.facility_key, time.time()))

    run(work)


def test_directory_that_lost_its_database_takes_back_whom_the_list_names(tmp_path: Path) -> None:
    async def work() -> None:
        world = World(tmp_path)
        a, thief, provisional = Facility("A"), Facility("thief"), Facility("C")
        letter = world.operator.invite("A", time.time())
        mine = claim(letter, a.signer.facility_key, time.time())
        theirs = claim(letter, thief.signer.facility_key, time.time())
        not_listed = world.membership(provisional)
        async with world.serving(), world.client() as client:
            await client.join(a, mine)
            await world.sign(mine)
            await client.join(provisional, not_listed)
        lose(tmp_path, "directory.db*")
        async with world.serving(), world.client() as client:
            assert (await client.call("GetNetwork", pb.GetNetworkRequest())).list_number == 1
            with pytest.raises(Conflict, match="another facility"):  # though it comes first
                await client.join(thief, theirs)
            world.late = 72 * 3600 + 1
            with pytest.raises(PeerUntrusted, match="no member"):
                await client.login(a)
            await client.join(a, mine)
            await client.login(a)
            with pytest.raises(PeerUntrusted, match="expired"):
                await client.join(provisional, not_listed)

    run(work)


def lose(folder: Path, *patterns: str) -> None:
    for pattern in patterns:
        for file in folder.glob(pattern):
            file.unlink()


def test_thief_of_a_letter_is_put_out_when_the_lost_list_is_back(tmp_path: Path) -> None:
    async def work() -> None:
        world = World(tmp_path)
        a, thief = Facility("A"), Facility("thief")
        letter = world.operator.invite("A", time.time())
        mine = claim(letter, a.signer.facility_key, time.time())
        theirs = claim(letter, thief.signer.facility_key, time.time())
        async with world.serving(), world.client() as client:
            await client.join(a, mine)
            await world.sign(mine)
        lose(tmp_path, "directory.db*", "newest.list")
        async with world.serving() as server, world.client() as client, world.client() as other:
            await other.join(thief, theirs)
            await other.login(thief)
            async with other.watch() as stream:
                with pytest.raises(Conflict, match="another facility"):
                    await client.join(a, mine)
                await client.call("Publish", pb.PublishRequest(list=world.encoded))
                with trio.fail_after(20):
                    while await stream.read() is not None:
                        pass
            with pytest.raises(PeerUntrusted):
                await other.login(thief)
            assert server._registry.counts["facilities"] == 0
            await client.join(a, mine)
            await client.login(a)
            assert server._registry.counts["facilities"] == 1
        async with world.serving() as server, world.client() as client:
            await client.login(a)
            with pytest.raises(PeerUntrusted):
                await client.login(thief)

    run(work)


def test_node_announces_itself_only_and_never_goes_back(tmp_path: Path) -> None:
    async def work() -> None:
        world = World(tmp_path)
        async with (
            world.serving(),
            member(world, "A") as (a, client, _),
            member(world, "B") as (b, _, _),
        ):
            request = pb.AnnounceRequest(statements=b.statements(), listing=b.listing())
            with pytest.raises(PeerUntrusted, match="announce only itself"):
                await client.call("Announce", request)
            request = pb.AnnounceRequest(statements=a.statements(), listing=b.listing())
            with pytest.raises(BadSignature):
                await client.call("Announce", request)
            request = pb.AnnounceRequest(statements=a.statements(1), listing=a.listing())
            with pytest.raises(Conflict, match="later announcement"):
                await client.call("Announce", request)
            found = await client.call("Lookup", pb.LookupRequest(facility_ids=[b.id.digest]))
            [wire] = found.records
            record = open_record(
                wire.statements,
                wire.listing,
                wire.membership,
                world.operator.network_key,
                is_online=wire.online,
            )
            assert (record.identity.facility_id, record.listing.city) == (b.id, "Helena")

    run(work)


def test_node_that_a_facility_has_announced_is_taken_by_no_other(tmp_path: Path) -> None:
    """Not even with the node's consent: who asks for it gets its own."""

    async def work() -> None:
        world = World(tmp_path)
        async with world.serving(), member(world, "A") as (a, client, _), world.client() as second:
            twin = Facility("B", node_key=a.node_key)
            await second.join(twin, world.membership(twin))
            await second.login(twin)
            with pytest.raises(Conflict, match="another facility"):
                await second.announce(twin)
            found = await client.call("Lookup", pb.LookupRequest(facility_ids=[a.id.digest]))
            assert len(found.records) == 1
            assert any("as its own" in text for text in world.alarms.texts())

    run(work)


def test_node_whose_certificate_has_expired_logs_in_no_more(tmp_path: Path) -> None:
    async def work() -> None:
        world = World(tmp_path)
        async with world.serving(), member(world, "A") as (a, client, _):
            world.late = 399 * 86400
            await client.login(a)
            world.late = 401 * 86400
            with pytest.raises(PeerUntrusted, match="emix node renew"):
                await client.login(a)

    run(work)


def test_replaced_nodes_session_ends_with_its_successors_announcement(tmp_path: Path) -> None:
    async def work() -> None:
        world = World(tmp_path)
        async with world.serving(), member(world, "A") as (old, client, _), world.client() as other:
            new = Facility("A", old.key)
            new.signer = certify_node(old.key, new.node_key, time.time(), generation=2)
            await client.call("Lookup", pb.LookupRequest())
            await other.login(new)
            await other.announce(new)
            with pytest.raises(PeerUntrusted, match="replaced this node"):
                await client.call("Lookup", pb.LookupRequest())
            with pytest.raises(PeerUntrusted, match="replaced this node"):
                await client.login(old)
            found = await other.call("Lookup", pb.LookupRequest(facility_ids=[old.id.digest]))
            assert [Identity.decode(r.statements).node_id for r in found.records] == [new.node_id]

    run(work)


def test_what_is_known_outlives_the_process(tmp_path: Path) -> None:
    async def work() -> None:
        world = World(tmp_path)
        async with world.serving(), member(world, "A") as (a, _, membership):
            await world.sign(membership)
        async with world.serving() as server, world.client() as client:
            assert server._registry.counts == {"facilities": 1, "nodes": 1, "online": 0}
            await client.login(a)
            found = await client.call("Find", pb.FindRequest(words="helena"))
            assert len(found.records) == 1
            shown = await client.call("GetNetwork", pb.GetNetworkRequest())
            assert shown.list == server._registry.encoded_list != b""

    run(work)


def test_list_goes_to_who_has_not_got_it_and_as_a_change_to_who_has_an_earlier_one(
    tmp_path: Path,
) -> None:
    async def work() -> None:
        world = World(tmp_path)
        key = world.operator.network_key
        async with world.serving(), member(world, "A") as (_, client, membership):

            async def shown(known: bytes = b"") -> Any:
                return await client.call("GetNetwork", pb.GetNetworkRequest(known_list=known))

            await world.sign(membership, *(world.membership(Facility(f"{n}")) for n in range(50)))
            whole = (await shown()).list
            first = open_list(whole, key, time.time())
            again = await shown(first.digest)
            assert (again.list, again.list_change, again.list_is_known) == (b"", b"", True)
            assert (await shown(b"another's")).list == whole
            async with client.watch(known_list=first.digest) as stream:
                gone = next(i for i in first.members if i != membership.invitation.id)
                await world.sign(membership, revoked=frozenset({gone}))
                change = await next_event(stream, "list_change")
                second = open_list(apply_change(first, change), key, time.time())
                assert second.number == first.number + 1
                assert second.revoked == {gone}
                # The stream goes on from what it has told.
                await world.sign(membership, revoked=frozenset({gone, InvitationId(bytes(32))}))
                third = apply_change(second, await next_event(stream, "list_change"))
                assert third == (await shown()).list
            skipped = await shown(first.digest)
            assert apply_change(first, skipped.list_change) == third
            assert skipped.list == b""
            async with client.watch() as stream:
                assert await next_event(stream, "list") == third
            for n in range(3):  # an old one is remembered for so long
                await world.sign(membership)
                assert bool((await shown(first.digest)).list_change) == (n == 0)

    run(work)


def test_watch_tells_what_changes_and_only_that(tmp_path: Path) -> None:
    async def work() -> None:
        world = World(tmp_path)
        async with (
            world.serving() as server,
            member(world, "A") as (a, client, membership),
            member(world, "B") as (b, other, theirs),
        ):
            async with client.watch(b.id) as stream:
                assert not (await next_event(stream, "record")).online
                async with other.watch():
                    assert (await next_event(stream, "record")).online
                    await other.announce(b, "Butte")
                    changed = await next_event(stream, "record")
                    assert b"Butte" in changed.listing
                    await other.call("AskDialBack", pb.AskDialBackRequest(facility_id=a.id.digest))
                    assert await next_event(stream, "dial_back") == b.id.digest
                    asked = pb.AskTicketRequest(facility_id=a.id.digest, relays=RELAYS[:1])
                    mine = (await other.call("AskTicket", asked)).ticket
                    halves = [
                        open_ticket(half, world.operator.network_key, time.time())
                        for half in (mine, await next_event(stream, "ticket"))
                    ]
                    assert halves[0].other_half() == halves[1]
                    assert (halves[0].caller_facility, halves[0].target) == (b.id, a.node_id)
                    assert halves[0].relay == RELAYS[0]
                    for avoid, taken in ((RELAYS[:1], RELAYS[1:]), (RELAYS, RELAYS)):
                        asked = pb.AskTicketRequest(facility_id=a.id.digest, avoid=avoid)
                        for _ in range(10):
                            half = (await other.call("AskTicket", asked)).ticket
                            key = world.operator.network_key
                            assert open_ticket(half, key, time.time()).relay in taken
                    await world.sign(membership, theirs)
                    await next_event(stream, "list_change")
                assert not (await next_event(stream, "record")).online
            with pytest.raises(NotFound, match="online"):
                await other.call("AskDialBack", pb.AskDialBackRequest(facility_id=b.id.digest))
            asked = pb.AskTicketRequest(facility_id=a.id.digest, relays=["no.example:1"])
            with pytest.raises(NotFound, match="relay"):
                await other.call("AskTicket", asked)
            with trio.fail_after(20):
                while server._registry.counts["online"]:
                    await trio.sleep(0.01)

    run(work)


def test_nodes_meet_at_relays_only_that_both_of_them_use(tmp_path: Path) -> None:
    async def work() -> None:
        world = World(tmp_path)
        async with (
            world.serving(),
            member(world, "A") as (a, client, _),
            member(world, "B") as (_, other, _),
        ):
            asked = pb.AskTicketRequest(facility_id=a.id.digest)
            key = world.operator.network_key
            async with client.watch() as stream:
                await stream.read()
                a.relays = RelayPolicy(only=(RELAYS[1], "elsewhere.example.org:443"))
                await client.announce(a)
                for avoid in ((), RELAYS[1:]):  # there is no other
                    asked = pb.AskTicketRequest(facility_id=a.id.digest, avoid=avoid)
                    for _ in range(10):
                        half = (await other.call("AskTicket", asked)).ticket
                        assert open_ticket(half, key, time.time()).relay == RELAYS[1]
                wanted = pb.AskTicketRequest(facility_id=a.id.digest, relays=RELAYS[:1])
                with pytest.raises(NotFound, match="by both"):
                    await other.call("AskTicket", wanted)
                a.relays = RelayPolicy(is_never=True)
                await client.announce(a)
                with pytest.raises(NotFound, match="by both"):
                    await other.call("AskTicket", asked)

    run(work)


def test_what_is_kept_need_not_be_announced_again_and_its_key_is_held_all_the_same(
    tmp_path: Path,
) -> None:
    async def work() -> None:
        world = World(tmp_path)
        async with world.serving(), member(world, "A") as (a, client, membership):
            statements, listing = a.statements(), a.listing("Butte")
            announced = pb.AnnounceRequest(statements=statements, listing=listing)
            await client.call("Announce", announced)

            async def again(statements: bytes, listing: bytes, signer: Facility = a) -> int:
                proof = await client.proof(signer)
                proof.statements, proof.listing_digest = statements, sha256(listing)
                answer = await client.call("Login", proof)
                client.session = answer.session
                return int(answer.again_seconds)

            assert 60 <= await again(statements, listing) <= 3600
            assert await again(statements, a.listing("Helena")) == 0
            assert await again(a.statements(), listing) == 0
            with pytest.raises(BadSignature):
                await again(statements, listing, Facility("stranger"))
            with pytest.raises(DocumentError):
                await again(statements[:-1] + b"x", listing)
            world.late = 3601  # it stands for less than an hour more
            assert await again(statements, listing) == 0
            world.late = 0
            await world.sign(revoked=frozenset({membership.invitation.id}))
            with pytest.raises(PeerUntrusted, match="revoked"):
                await again(statements, listing)

    run(work)


def test_process_that_leaves_says_so_and_takes_nobody_back(tmp_path: Path) -> None:
    async def work() -> None:
        world = World(tmp_path)
        async with world.serving() as server, member(world, "A") as (a, client, _):
            async with client.watch() as stream:
                with trio.fail_after(20):
                    while not server._watchers.total():
                        await trio.sleep(0.01)
                server.say_move()
                move = await next_event(stream, "move")
                assert 1 <= move.within_seconds <= service_module.MOVE_SECONDS
                with pytest.raises(PeerBusy, match="about to stop"):
                    await client.login(a)
                await client.call("Find", pb.FindRequest(words="a"))  # who is there is served
            async with client.watch() as stream:
                with pytest.raises(PeerBusy, match="about to stop"):
                    await stream.read()

    run(work)


def test_second_watch_of_a_node_ends_the_first_and_a_revocation_ends_both(
    tmp_path: Path,
) -> None:
    async def work() -> None:
        world = World(tmp_path)
        async with world.serving() as server, member(world, "A") as (_, client, membership):
            await world.sign(membership)
            async with client.watch() as first:
                await next_event(first, "list")
                async with client.watch() as second:
                    await next_event(second, "list")
                    with trio.fail_after(20):
                        while await first.read() is not None:
                            pass
                    assert server._registry.counts["online"] == 1
                    await world.sign(revoked=frozenset({membership.invitation.id}))
                    with trio.fail_after(20):
                        while await second.read() is not None:
                            pass
            with trio.fail_after(20):
                while server._registry.counts["online"]:
                    await trio.sleep(0.01)

    run(work)


def test_only_the_network_publishes_and_asks_for_memberships(tmp_path: Path) -> None:
    async def work() -> None:
        world = World(tmp_path)
        async with world.serving(), member(world, "A") as (a, client, membership):
            foreign = OperatorKey.new("Other", ("h:1",), time.time())
            encoded = foreign.next_list(None, [], (), time.time())
            with pytest.raises(DocumentError):
                await client.call("Publish", pb.PublishRequest(list=encoded))
            await world.sign(membership)
            encoded = world.operator.next_list(None, [], (), time.time())
            with pytest.raises(Conflict, match="list 2 of epoch 1 was published already"):
                await client.call("Publish", pb.PublishRequest(list=encoded))
            login = await client.proof(a)
            stolen = pb.ListMembershipsRequest(proof=login.proof, signature=login.signature)
            with pytest.raises(BadSignature):
                async with client._channel.stream(_METHODS["ListMemberships"], stolen) as stream:
                    await stream.read()

    run(work)


def test_strangers_calls_and_members_tickets_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    costly = {"AskTicket": 5, "Find": 20, "Announce": 3}
    monkeypatch.setattr(service_module, "COSTLY_CALLS_A_MINUTE", costly)
    monkeypatch.setattr(service_module, "CALLS_A_MINUTE", 60)

    async def work() -> None:
        world = World(tmp_path)
        world.strangers_a_minute = 20
        async with world.serving(), member(world, "A") as (a, client, _):
            refused = 0
            for _ in range(40):
                try:
                    await client.call("GetChallenge", pb.GetChallengeRequest())
                except PeerBusy:
                    refused += 1
            assert refused >= 20
            async with client.watch():
                errors: list[NodeError] = []
                for _ in range(12):
                    try:
                        asked = pb.AskTicketRequest(facility_id=a.id.digest)
                        await client.call("AskTicket", asked)
                    except NodeError as exc:
                        errors.append(exc)
                assert sum(isinstance(e, PeerBusy) for e in errors) >= 7
            too_many = [bytes([n, 0]) + bytes(30) for n in range(101)]
            with pytest.raises(UsageError, match="at most 100"):
                await client.call("Lookup", pb.LookupRequest(facility_ids=too_many))
            with pytest.raises(UsageError, match="32 bytes"):
                await client.call("Lookup", pb.LookupRequest(facility_ids=[b"short"]))
            refused = 0
            for _ in range(60):
                try:
                    await client.call("Find", pb.FindRequest(words="clinic"))
                except PeerBusy:
                    refused += 1
            assert refused >= 20  # a member's calls are many, not without end
            refused = 0
            for _ in range(12):
                try:
                    await client.announce(a)
                except PeerBusy:
                    refused += 1
            assert refused >= 6

    run(work)


def test_nodes_of_one_facility_that_watch_and_announce_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "MAX_NODES", 2)
    monkeypatch.setattr(registry_module, "MAX_NODES", 2)

    async def work() -> None:
        world = World(tmp_path)
        async with world.serving(), member(world, "A") as (a, client, _):
            others = [Facility("A", a.key) for _ in range(2)]
            async with world.client() as second, world.client() as third:
                await second.login(others[0])
                await third.login(others[1])
                await second.announce(others[0])
                with pytest.raises(Conflict, match="can announce"):
                    await third.announce(others[1])
                async with client.watch(a.id) as one, second.watch(a.id) as two:
                    await next_event(one, "record")
                    await next_event(two, "record")
                    async with third.watch(a.id) as stream:
                        with pytest.raises(PeerBusy, match="too many nodes"):
                            await stream.read()
                async with third.watch(a.id) as stream:  # there is a place again
                    await next_event(stream, "record")

    run(work)


def test_announcement_that_stands_is_written_again_only_when_half_its_time_is_over(
    tmp_path: Path,
) -> None:
    async def work() -> None:
        world = World(tmp_path)
        async with world.serving() as server, member(world, "A") as (a, client, _):
            statements, listing = a.statements(), a.listing()

            async def announce() -> int:
                request = pb.AnnounceRequest(statements=statements, listing=listing)
                await client.call("Announce", request)
                found = await server._replica._storage.node(a.node_id)
                assert found is not None
                return found.expires_seconds

            first = await announce()
            world.late = 3000
            assert await announce() == first
            world.late = 3599.5  # the session ends then
            await client.login(a)
            world.late = 3700
            assert await announce() >= first + 3600
            listing = a.listing("Butte")
            world.late = 3800
            assert await announce() >= first + 3700

    run(work)


def test_whole_lists_on_their_way_are_bounded_and_those_that_have_come_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        world = World(tmp_path)
        async with world.serving() as server, member(world, "A") as (_, client, membership):
            await world.sign(membership)
            monkeypatch.setattr(service_module, "LISTS_AT_ONCE", 1)
            for _ in range(5):
                whole = (await client.call("GetNetwork", pb.GetNetworkRequest())).list
                with trio.fail_after(10):
                    while server._sending:
                        await trio.sleep(0.01)
            monkeypatch.setattr(service_module, "LISTS_AT_ONCE", 0)
            with pytest.raises(PeerBusy, match="too many lists"):
                await client.call("GetNetwork", pb.GetNetworkRequest())
            known = open_list(whole, world.operator.network_key, time.time()).digest
            request = pb.GetNetworkRequest(known_list=known)
            assert (await client.call("GetNetwork", request)).list_is_known  # costs nothing

    run(work)


def test_whole_list_goes_before_a_login_only_to_whom_it_revokes(tmp_path: Path) -> None:
    """A directory that was made anew has no earlier list, from which a change would lead."""

    async def work() -> None:
        world = World(tmp_path)
        async with world.serving(), world.client() as client:
            named, gone, unnamed = (world.membership(Facility(name)) for name in "ABC")
            await world.sign(named, revoked=frozenset({gone.invitation.id}))

            async def shown(membership: bytes) -> bytes:
                request = pb.GetNetworkRequest(known_list=b"lost", membership=membership)
                return bytes((await client.call("GetNetwork", request)).list)

            listed = open_list(await shown(gone.encoded), world.operator.network_key, time.time())
            assert listed.revoked == {gone.invitation.id}
            for stranger in (b"", named.encoded, unnamed.encoded):  # the named one logs in
                assert await shown(stranger) == b""
            with pytest.raises(DocumentError):
                await shown(b"no membership")

    run(work)


def test_node_key_of_a_time_to_come_does_not_log_in(tmp_path: Path) -> None:
    """It would be the facility's for good: whatever the facility takes after it is earlier."""

    async def work() -> None:
        world = World(tmp_path)
        async with world.serving() as server, member(world, "A") as (a, client, _):
            later = Facility("A")
            later.key = a.key
            now = time.time() + 86400
            later.signer = certify_node(a.key, later.node_key, now, generation=int(now))
            with pytest.raises(NodeError, match="ahead of this node"):
                await client.login(later)
            await client.login(a)
            assert server._registry.generation(a.signer.facility_id) < now - 3600

    run(work)
