"""A directory that somebody broke into: it can answer anything, and changes nothing at a node.

The test holds the network's key, to sign what is right; the attacks use only what a directory
has: other keys, old documents, and the documents of others.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from emix.directory.v1 import directory_pb2 as pb
from emix.documents.v1 import documents_pb2 as documents
from emix.documents.v1 import network_pb2 as network_pb

from directory_service.operator import OperatorKey
from node.crypto.certificates import issue_directory_certificate
from node.crypto.signing import SigningKey
from node.documents.identity import Identity, Profile, make_statements
from node.documents.lists import LIST_SECONDS, delegate_lists, make_change, open_list, sign_list
from node.documents.network import Listing, claim, sign_listing
from node.documents.tickets import Ticket, TicketSigner, certify_tickets, read_ticket_signer
from node.domain.ids import InvitationId, NodeId
from node.rpc.credentials import introduction_credentials
from node.rpc.serving import serve
from tests.support.hostile import HostilePeer
from tests.support.hostile_directory import HostileDirectory
from tests.support.loop import run
from tests.support.nodes import Node, free_port, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]
RELAYS = ("127.0.0.1:1",)
WORDS = {
    "list": "list",
    "list_change": "a change of the list that does not verify",
    "record": "a record that failed verification",
    "ticket": "a relay ticket that does not verify",
}
"""What the alarm says, by what was shown."""


class Attacks:
    """What a broken-in directory can show, by name."""

    def __init__(self, directory: HostileDirectory, victim: HostilePeer, folder: Path) -> None:
        self._operator = directory.operator
        self._me = directory.joined[0]
        self._my_node = Identity.decode(directory.statements).node_id
        self._now = time.time()
        self._attacker = HostilePeer(folder, "attacker")
        self._victim = victim
        letter = self._operator.invite("Victim Hospital", self._now)
        self.victims = claim(letter, victim.keys.signer.signer.facility_key, self._now)
        self._other_network = OperatorKey.new("Other", ("h:1",), self._now)
        members = {m.invitation.id: m.facility_id for m in (self._me, self.victims)}
        self._members = members

    def good_list(self, number: int, revoked: frozenset[InvitationId] = frozenset()) -> bytes:
        return self._list(self._operator.key, number, revoked)

    def last_list(self, number: int, revoked: frozenset[InvitationId], seconds: float) -> bytes:
        """Return a list that is valid for some seconds only."""
        when = time.time() + seconds - LIST_SECONDS
        return self._list(self._operator.key, number, revoked, when=when)

    def _list(
        self,
        key: SigningKey,
        number: int,
        revoked: frozenset[InvitationId] = frozenset(),
        *,
        when: float = 0.0,
        certificate: bytes = b"",
        operator: OperatorKey | None = None,
    ) -> bytes:
        network = (operator or self._operator).network
        now = when or self._now
        return sign_list(key, network, number, self._members, revoked, now, certificate=certificate)

    def record(
        self,
        peer: HostilePeer,
        membership: bytes,
        *,
        listing_by: HostilePeer | None = None,
        statements: bytes | None = None,
    ) -> pb.NodeRecord:
        own = statements if statements is not None else peer.statements()
        signer = (listing_by or peer).keys.signer
        identity = Identity.decode(peer.statements())
        listing = sign_listing(signer.node_key, identity, Listing("Billings"))
        return pb.NodeRecord(statements=own, listing=listing, membership=membership, online=True)

    def _changes(self) -> dict[str, bytes]:
        key, later = self._operator.network_key, self.good_list(3)
        base, other = (open_list(self.good_list(n), key, self._now) for n in (2, 1))
        shown = open_list(later, key, self._now)
        altered = network_pb.ListChange.FromString(make_change(base, shown, later))
        facility = self._attacker.keys.signer.signer.facility_id.digest
        altered.added_members.add(invitation_digest=bytes(32), facility_id=facility)
        return {
            "a change that adds the attacker": altered.SerializeToString(),
            "a change of another list": make_change(other, shown, later),
            "noise for a change": b"\xff" * 100,
        }

    def all(self) -> dict[str, pb.WatchResponse]:
        """Return them: each must raise an alarm and change nothing."""
        attacker_key, now = SigningKey.new(), self._now
        forged = delegate_lists(attacker_key, attacker_key.public, now + 3600)
        late = delegate_lists(self._operator.key, attacker_key.public, now - 3600)
        lists = {
            "a list by another key": self._list(attacker_key, 9),
            "a list of another network": self._list(
                self._other_network.key, 9, operator=self._other_network
            ),
            "a list by a key that certified itself": self._list(
                attacker_key, 9, certificate=forged
            ),
            "a list by a key whose time is over": self._list(attacker_key, 9, certificate=late),
            "a list from the future": self._list(self._operator.key, 9, when=now + 7200),
            "an older list": self._list(self._operator.key, 1),
            "a second list of one number": self._list(
                self._operator.key, 2, frozenset({self.victims.invitation.id})
            ),
            "no list at all": b"\xff" * 100,
        }
        found = {name: pb.WatchResponse(list=data) for name, data in lists.items()}
        changes = self._changes().items()
        found |= {name: pb.WatchResponse(list_change=data) for name, data in changes}
        attackers = claim(
            self._other_network.invite("Attacker", now),
            self._attacker.keys.signer.signer.facility_key,
            now,
        )
        altered = bytearray(stated_by(self._victim, "127.0.0.1:7410", int(now)))
        altered[altered.index(b"127.0.0.1")] ^= 1  # another address
        records = {
            "the attacker with the victim's membership": self.record(
                self._attacker, self.victims.encoded
            ),
            "the attacker with a membership of its own network": self.record(
                self._attacker, attackers.encoded
            ),
            "the victim at another address": self.record(
                self._victim, self.victims.encoded, statements=bytes(altered)
            ),
            "the victim with the attacker's listing": self.record(
                self._victim, self.victims.encoded, listing_by=self._attacker
            ),
            "the victim without a membership": self.record(self._victim, b""),
            "noise for a record": pb.NodeRecord(statements=b"\xff" * 50),
        }
        found |= {name: pb.WatchResponse(record=record) for name, record in records.items()}
        tickets = {
            "a ticket that the attacker signed": TicketSigner(
                attacker_key, documents.SignedBytes()
            ).sign(self._ticket(self._my_node)),
            "a ticket by a key that certified itself": read_ticket_signer(
                attacker_key, certify_tickets(attacker_key, attacker_key.public, RELAYS, now + 60)
            ).sign(self._ticket(self._my_node)),
            "another node's ticket": self._signer().sign(self._ticket(NodeId(bytes(32)))),
            "a ticket to a relay that the network has not named": self._signer().sign(
                replace(self._ticket(self._my_node), relay="169.254.169.254:80")
            ),
            "a ticket with something riding on it": self._signer().sign(self._ticket(self._my_node))
            + b"\x7a\x04ride",
            "the caller's half of a ticket": self._signer().sign(
                self._ticket(self._my_node).other_half()
            ),
        }
        found |= {name: pb.WatchResponse(ticket=data) for name, data in tickets.items()}
        return found

    def right_half(self) -> bytes:
        """Return a ticket with which nothing is wrong."""
        return self._signer().sign(self._ticket(self._my_node))

    def own_halves(self) -> dict[str, bytes]:
        """Return what a directory can answer when the node asks for a ticket to the victim."""
        right = self._ticket(self._my_node).other_half()
        mine = Ticket.new(
            RELAYS[0],
            self._me.facility_id,
            self._my_node,
            self._victim.keys.signer.signer.facility_id,
            self._victim.keys.signer.node_id,
            time.time(),
        )
        attacker = self._attacker.keys.signer
        joined = replace(mine, target_facility=attacker.signer.facility_id, target=attacker.node_id)
        forger = TicketSigner(SigningKey.new(), documents.SignedBytes())
        return {
            "a ticket to the attacker": self._signer().sign(joined),
            "a ticket of another caller": self._signer().sign(right),
            "a ticket to the victim that the attacker signed": forger.sign(mine),
        }

    def _signer(self) -> TicketSigner:
        key = SigningKey.new()
        return read_ticket_signer(
            key, certify_tickets(self._operator.key, key.public, RELAYS, self._now + 3600)
        )

    def _ticket(self, target: NodeId) -> Ticket:
        facility = self._victim.keys.signer.signer.facility_id
        mine = self._me.facility_id
        caller = self._victim.keys.signer.node_id
        return Ticket.new("127.0.0.1:1", facility, caller, mine, target, time.time()).other_half()


def stated_by(peer: HostilePeer, endpoint: str, when: int) -> bytes:
    keys = peer.keys
    return make_statements(
        keys.secrets.node_key,
        keys.signer.signer,
        [peer.tls.certificate_der],
        keys.secrets.seal_keys[0].public,
        Profile("Victim", (endpoint,), (), when),
    )


def in_status(node: Node, text: str) -> bool:
    """Whether an admin is shown an alarm of a directory."""
    shown = node.json("status")["alarms"]
    return any(alarm.startswith("directory: ") and text in alarm for alarm in shown)


def test_broken_in_directory_changes_nothing_and_every_attack_raises_an_alarm(
    tmp_path: Path,
) -> None:
    port = free_port()
    operator = OperatorKey.new("Montana Imaging", (f"127.0.0.1:{port}",), time.time())
    assert operator.root is not None
    tls = issue_directory_certificate(operator.root, time.time())
    node = Node(tmp_path, "node", "Great Falls Clinic")
    node.make()
    node.set(trust='"network"')
    node.start()
    victim = HostilePeer(tmp_path, "victim")
    file = tmp_path / "victim.emix"
    file.write_bytes(victim.statements())
    tried: list[str] = []

    def state() -> Any:
        keys = ("facility_id", "pinned_how", "endpoint", "node_id")
        peers = [{k: p[k] for k in keys} for p in node.json("peers")["peers"]]
        networks = [
            {k: n[k] for k in ("standing", "list_number", "members")}
            for n in node.json("networks")["networks"]
        ]
        return peers, networks

    async def asked(work: Callable[..., Any], *arguments: Any) -> Any:
        return await trio.to_thread.run_sync(work, *arguments)

    async def work() -> None:
        directory = HostileDirectory(operator)
        async with serve(
            [directory.service()],
            f"127.0.0.1:{port}",
            credentials=introduction_credentials(tls),
        ):
            await asked(node.run, "peers", "pair", str(file))
            letter = operator.invite("Great Falls Clinic", time.time()).encode()
            await asked(node.run, "join", letter)
            with trio.fail_after(30):
                await directory.watching.wait()
            attacks = Attacks(directory, victim, tmp_path)
            directory.shown_list = attacks.good_list(2)
            await directory.tell.send(pb.WatchResponse(list=directory.shown_list))
            await asked(
                wait_until,
                lambda: node.json("networks")["networks"][0]["standing"] == "member",
                "the right list was not taken",
            )
            good = await asked(state)

            async def is_remote(name: str, text: str) -> None:
                """Check that an admin sees an alarm, and sees it again after having seen it."""
                await asked(wait_until, lambda: in_status(node, text), name, 60)
                tried.append(name)
                await asked(node.run, "audit", "acknowledge")

            for name, message in attacks.all().items():
                await directory.tell.send(message)
                await is_remote(name, WORDS[message.WhichOneof("event") or ""])
                assert await asked(state) == good, name
            directory.found = [
                m.record for m in attacks.all().values() if m.WhichOneof("event") == "record"
            ]
            assert (await asked(node.json, "find", "hospital"))["facilities"] == []
            await is_remote("a search that finds forged records", "record that failed verification")
            directory.found = []
            victim_id = victim.keys.signer.signer.facility_id
            for name, half in attacks.own_halves().items():
                directory.ticket = half
                await directory.tell.send(pb.WatchResponse(dial_back=victim_id.digest))  # go on
                # The victim is paired, and cannot be dialled: a relay is the way to it.
                await is_remote(name, "relay ticket that does not verify")
            directory.ticket = b""
            right = pb.WatchResponse(ticket=attacks.right_half())
            await directory.tell.send(right)
            await directory.tell.send(right)
            await is_remote("a relay ticket twice", "used before")
            directory.challenge = secrets.token_bytes(56)
            for _ in range(2):  # signed once, and not again
                await directory.tell.send(None)
                directory.watching = trio.Event()
                with trio.move_on_after(10):
                    await directory.watching.wait()
            await is_remote("a challenge twice", "the directory reused a challenge")
            directory.challenge, directory.has_let_in_another = b"", True
            await is_remote("the attacker with our invitation", "our invitation under another")
            directory.has_let_in_another = False
            with trio.fail_after(60):
                await directory.watching.wait()
            assert await asked(state) == good
            # What cannot be told from a mistake raises no alarm, and changes nothing either.
            stale = stated_by(victim, "203.0.113.9:1", 1)
            record = attacks.record(victim, attacks.victims.encoded, statements=stale)
            await directory.tell.send(pb.WatchResponse(record=record))
            await directory.tell.send(pb.WatchResponse(dial_back=bytes(range(32))))
            await directory.tell.send(pb.WatchResponse(dial_back=b"short"))
            await directory.tell.send(pb.WatchResponse(list=b"noise"))
            await is_remote("noise for a list", "a list that the network did not sign")
            assert await asked(state) == good
            # A revocation that was seen once stays, whatever a later list says.
            revoked = frozenset({attacks.victims.invitation.id})
            await directory.tell.send(pb.WatchResponse(list=attacks.good_list(3, revoked)))
            await directory.tell.send(pb.WatchResponse(list=attacks.good_list(4)))
            await asked(
                wait_until,
                lambda: node.json("networks")["networks"][0]["list_number"] == 4,
                "list 4 was not taken",
            )
            directory.found = [attacks.record(victim, attacks.victims.encoded)]
            [found] = (await asked(node.json, "find", "hospital"))["facilities"]
            assert found["standing"] == "revoked"
            # No list is shown any more, and the last one's time runs out.
            last = attacks.last_list(5, revoked, seconds=8)
            await directory.tell.send(pb.WatchResponse(list=last))
            await asked(
                wait_until,
                lambda: any("list has expired" in a for a in node.json("status")["alarms"]),
                "a list withheld past its expiry",
            )
            tried.append("a list withheld past its expiry")

    try:
        run(work)
        assert len(tried) >= 32
        # They stay in the audit log, each with who has seen it.
        entries = node.json("audit", "--limit", "0")["entries"]
        kinds = [entry["kind"] for entry in entries]
        assert kinds.count("alarm.directory") >= len(tried) - 1
        assert kinds.count("audit.acknowledged") == len(tried) - 1
        assert "intact" in node.run("audit", "verify")
    finally:
        assert node.stop() == 0
