"""Statements that no honest node would make, built from what others have signed."""

from pathlib import Path

from emix.documents.v1 import documents_pb2 as pb

from node.crypto.keyring import RecoveryKit
from node.crypto.signing import SigningKey
from tests.support.hostile import HostilePeer
from tests.support.nodes import Node


def exported(node: Node) -> bytes:
    """Return a real node's statements."""
    file = node.home.with_suffix(".exported")
    node.run("id", "--export", str(file), "--no-qr")
    return file.read_bytes()


def facility_key_of(folder: Path, peer: HostilePeer) -> SigningKey:
    """Return the facility key of a hostile peer, from its recovery kit."""
    return RecoveryKit.decode((folder / f"{peer.name}.kit").read_bytes()).facility_key


def certified_anew(statements: bytes, facility_key: SigningKey) -> bytes:
    """Return somebody's statements with their node certified by another facility."""
    wire = pb.Statements.FromString(statements)
    cert = pb.NodeCert.FromString(wire.node_cert.body)
    cert.facility_key = wire.facility_key = facility_key.public
    body = cert.SerializeToString()
    wire.node_cert.CopyFrom(
        pb.SignedBytes(body=body, signature=facility_key.sign("node-cert", body))
    )
    return wire.SerializeToString()


def alarms(node: Node) -> list[str]:
    """Return the kinds and bodies of a node's alarms."""
    entries = node.json("audit")["entries"]
    return [f"{e['kind']} {e['body']}" for e in entries if e["kind"].startswith("alarm.")]
