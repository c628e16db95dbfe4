"""Who carries a node's request to the recovery kit, or has taken the node that writes it."""

import json
from base64 import b64encode
from pathlib import Path
from time import time

import pytest
from emix.documents.v1 import documents_pb2 as pb

from node.app.home import Home, save_identity, unlock
from node.crypto.keyring import RecoveryKit
from node.crypto.keys import SealKey
from node.crypto.signing import SigningKey, node_id
from node.documents.identity import Profile, make_statements
from node.documents.node_requests import encode_certificate
from node.documents.signed import Signer, certify_node, claim_node
from node.errors import BadSignature, PeerUntrusted
from node.federation.connections.introduction_client import IntroductionClient
from node.federation.routes.dialing import Dialer
from tests.integration.attacks.identity import facility_key_of
from tests.support.hostile import HostilePeer
from tests.support.loop import run
from tests.support.nodes import CommandFailed, Node

pytestmark = pytest.mark.integration
DECADE = 10 * 365 * 86400
LAST = 2**40 - 1


def home_of(folder: Path) -> Node:
    """Return a stopped node."""
    node = Node(folder, "node", "Careful Clinic")
    node.make()
    return node


def public_facility_key(node: Node) -> bytes:
    return unlock(Home(node.home), None).signer.signer.facility_key


def certified(facility_key: SigningKey, key: SigningKey, generation: int) -> Signer:
    """Return a certificate of a generation that no command gives."""
    body = pb.NodeCert(
        facility_key=facility_key.public,
        node_key=key.public,
        issued_seconds=int(time()),
        expires_seconds=int(time()) + 86400,
        generation=generation,
        node_signature=claim_node(key, facility_key.public),
    ).SerializeToString()
    return Signer(facility_key.public, body, facility_key.sign("node-cert", body))


def test_request_that_was_swapped_on_its_way_is_certified_for_nobody(tmp_path: Path) -> None:
    node, thief = home_of(tmp_path), SigningKey.new()
    asked, answer = tmp_path / "node.request", tmp_path / "node.certificate"
    certify = ("node", "certify", str(asked), str(answer), "--recovery-kit", str(node.kit))
    facility = public_facility_key(node)
    body = pb.NodeCert(
        facility_key=facility,
        node_key=thief.public,
        issued_seconds=int(time()),
        expires_seconds=int(time()) + 86400,
        generation=int(time()),
        node_signature=claim_node(thief, facility),
    ).SerializeToString()
    parts = {
        "facility_key": facility,
        "node_key": thief.public,
        "claim": claim_node(thief, facility),
        "node_cert": body,
        "node_cert_signature": thief.sign("node-cert", body),
        "signature": thief.sign("node-request", body),
    }
    texts = {name: b64encode(part).decode() for name, part in parts.items()}
    head = {"format": "emix-node-request/1", "generation": LAST}
    asked.write_text(json.dumps(head | texts))
    for named in ((), ("--node", str(node_id(thief.public)))):
        with pytest.raises(CommandFailed):
            node.run(*certify, *named)
        assert not answer.exists()


def test_request_of_another_node_of_the_facility_is_not_the_one_that_is_named(
    tmp_path: Path,
) -> None:
    """The stolen, replaced node asks: its certificate is the kit's, the person names the new."""
    node = home_of(tmp_path)
    asked, answer = tmp_path / "node.request", tmp_path / "node.certificate"
    node.run("node", "request", str(asked))
    new = json.loads(node.run("node", "replace", "--recovery-kit", str(node.kit), "--json"))
    certify = ("node", "certify", str(asked), str(answer), "--recovery-kit", str(node.kit))
    with pytest.raises(CommandFailed, match="not of the one that you name"):
        node.run(*certify, "--node", new["node_id"])
    assert not answer.exists()


def test_home_takes_no_certificate_of_a_time_to_come_and_is_replaced_after(tmp_path: Path) -> None:
    node = home_of(tmp_path)
    keys = unlock(Home(node.home), None)
    kit = RecoveryKit.decode(node.kit.read_bytes())
    answer, before = tmp_path / "node.certificate", node.run("keys", "--json")
    answer.write_bytes(encode_certificate(certified(kit.facility_key, keys.secrets.node_key, LAST)))
    with pytest.raises(CommandFailed):
        node.run("node", "renew", "--certificate", str(answer))
    signer = certified(kit.facility_key, keys.secrets.node_key, LAST)
    with pytest.raises(BadSignature):
        save_identity(Home(node.home), keys, signer, keys.secrets)
    assert node.run("keys", "--json") == before
    node.run("node", "replace", "--recovery-kit", str(node.kit))
    assert node.run("keys", "--json") != before


def test_home_that_was_made_by_a_clock_far_ahead_is_recovered_with_the_kit(tmp_path: Path) -> None:
    node = home_of(tmp_path)
    keys, ring = unlock(Home(node.home), None), Home(node.home).keyring
    kit = RecoveryKit.decode(node.kit.read_bytes())
    ahead = time() + DECADE
    absurd = certify_node(kit.facility_key, keys.secrets.node_key, ahead, generation=int(ahead))
    written = json.loads(ring.read_text())
    written["public"]["node_cert"] = b64encode(absurd.node_cert).decode()
    written["public"]["node_cert_signature"] = b64encode(absurd.node_cert_signature).decode()
    ring.write_text(json.dumps(written))
    replace = ("node", "replace", "--recovery-kit", str(node.kit), "--json")
    with pytest.raises(CommandFailed, match="set this machine's clock"):
        node.run(*replace)
    found = json.loads(node.run(*replace, "--clock-is-right"))
    assert abs(found["generation"] - time()) < DECADE / 10


def test_node_key_of_a_time_to_come_is_pinned_and_renewed_by_nobody(tmp_path: Path) -> None:
    """Kept, it would be the facility for good: what the facility takes afterwards is earlier."""
    victim = home_of(tmp_path)
    victim.start()
    try:
        honest = HostilePeer(tmp_path, "honest")
        honest.pair_with(victim)
        facility_key, now = facility_key_of(tmp_path, honest), time() + DECADE
        key = honest.keys.secrets.node_key

        def stated(node_key: SigningKey, facility: SigningKey) -> bytes:
            signer = certify_node(facility, node_key, now, generation=int(now))
            return make_statements(
                node_key,
                signer,
                [honest.tls.certificate_der],
                SealKey.new().public,
                Profile("honest", (), (), int(time())),
            )

        async def present() -> None:
            statements = stated(key, facility_key)
            address = victim.addresses["introduction"]
            with pytest.raises(PeerUntrusted):
                await IntroductionClient(Dialer()).present_statements(address, statements, [])

        run(present)
        file = tmp_path / "to-come.statements"
        file.write_bytes(stated(key, facility_key))
        with pytest.raises(CommandFailed, match="ahead of this node"):
            victim.run("peers", "pair", str(file))
    finally:
        victim.stop()
