"""Packages that nobody has: manifests and deliveries of any size, rightly signed."""

import secrets
from pathlib import Path
from time import time

from node.crypto.digests import sha256
from node.crypto.keys import DataKey
from node.documents.delivery import Delivery, sign_delivery
from node.documents.identity import Identity
from node.documents.manifest import sign_manifest
from node.domain.ids import ChunkId, TransferId
from node.domain.manifest import ChunkEntry, Extent, InstanceEntry, Manifest, StudyInstanceUID
from node.domain.transfers import Priority
from tests.support.hostile import Forgery, HostilePeer
from tests.support.nodes import Node

_UID = "1.2.840.10008." + "1234567890." * 4 + "5"


def promise(
    peer: HostilePeer,
    identity: Identity,
    *,
    chunks: int,
    chunk_bytes: int = 80,
    plaintext_bytes: int = 1,
    created: float = 0.0,
    stands: float = 3600.0,
    note: str = "",
) -> Forgery:
    """Make a package of one instance a chunk, whose chunks were never sealed."""
    key, signer = DataKey.new(), peer.keys.signer
    entries = tuple(
        ChunkEntry(n, ChunkId(secrets.token_bytes(32)), plaintext_bytes, chunk_bytes, bytes(32))
        for n in range(chunks)
    )
    instances = tuple(
        InstanceEntry(
            _UID,  # type: ignore[arg-type]
            f"{_UID}{n % 10}",  # type: ignore[arg-type]
            _UID,  # type: ignore[arg-type]
            _UID,  # type: ignore[arg-type]
            plaintext_bytes,
            bytes(32),
            (Extent(n, 0, plaintext_bytes),),
        )
        for n in range(chunks)
    )
    manifest = Manifest(
        key.package_id, signer.facility_id, StudyInstanceUID(_UID), time(), instances, entries
    )
    document = sign_manifest(manifest, signer)
    transfer_id = TransferId.new()
    sealed_key = key.seal_to(identity.seal_key, transfer_id)
    now = created or time()
    delivery = Delivery(
        transfer_id=transfer_id,
        package_id=key.package_id,
        origin=signer.facility_id,
        manifest_digest=document.digest(),
        manifest_bytes=len(document.encode()),
        sender=peer.facility,
        receiver=identity.facility_id,
        sealed_key_digest=sha256(sealed_key),
        created_time=now,
        expires_time=now + stands,
        priority=Priority.ROUTINE,
        recipient="",
        note=note,
        instances=chunks,
        sealed_bytes=manifest.sealed_bytes,
    )
    return Forgery(peer, key, document, sign_delivery(delivery, signer), sealed_key, {})


def again(forgery: Forgery, identity: Identity) -> Forgery:
    """Return a promise of the same package, as another transfer."""
    return forgery.with_key(forgery.key, identity, TransferId.new())


def peak_megabytes(node: Node) -> float:
    """Return the most memory that a node has had since it was asked last."""
    assert node.process is not None
    folder = Path(f"/proc/{node.process.pid}")
    status = (folder / "status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    (folder / "clear_refs").write_text("5")
    return int(peak.split()[1]) / 1024
