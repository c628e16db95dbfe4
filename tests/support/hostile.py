"""A peer whose keys the test has, so that it can send what no honest node would."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import time

from emix.exchange.v1 import exchange_pb2 as pb

from node.app.home import Home, NewNode, Unlocked, make_home, unlock
from node.chunks.format import Piece, seal_chunk
from node.crypto.certificates import TlsIdentity, server_name
from node.crypto.digests import digest, sha256
from node.crypto.keys import DataKey
from node.documents.delivery import Delivery, open_delivery, sign_delivery
from node.documents.identity import Identity, Profile, make_statements
from node.documents.manifest import sign_manifest
from node.documents.messages import ChunkFrame, ManifestFrame, Message, Offer, Want
from node.documents.signed import Document
from node.domain.connections import Route
from node.domain.ids import FacilityId, TransferId
from node.domain.manifest import (
    AttachmentEntry,
    ChunkEntry,
    Extent,
    InstanceEntry,
    Manifest,
    StudyInstanceUID,
)
from node.domain.transfers import Priority
from node.federation.connections.link import GrpcLink, open_link
from node.federation.connections.wire import CARRY as CARRY_BOUND
from node.rpc.calling import Channel, open_channel
from node.rpc.credentials import client_credentials
from node.rpc.methods import Method, method
from tests.support.dicom_files import make_instance, study_uid
from tests.support.nodes import Node

_SERVICE = pb.DESCRIPTOR.services_by_name["ExchangeService"]
HELLO = method(_SERVICE, "Hello", pb.HelloRequest, pb.HelloResponse)
WATCH = method(_SERVICE, "Watch", pb.WatchRequest, pb.WatchResponse)
CARRY: Method[pb.CarryRequest, pb.CarryResponse] = method(
    _SERVICE, "Carry", pb.CarryRequest, pb.CarryResponse, answer=CARRY_BOUND
)


def hello() -> pb.HelloRequest:
    return pb.HelloRequest(min_version=1, max_version=1, time_milliseconds=int(time() * 1000))


class HostilePeer:
    """A facility of the test's own, with a real node's keys."""

    def __init__(self, folder: Path, name: str = "hostile") -> None:
        home = Home(folder / name)
        new = NewNode(name, folder / f"{name}.kit", None, "127.0.0.1:0", "127.0.0.1:0")
        make_home(home, new)
        self.keys: Unlocked = unlock(home, None)
        self.name = name
        self._folder = folder

    @property
    def tls(self) -> TlsIdentity:
        return self.keys.secrets.tls[0]

    @property
    def facility(self) -> FacilityId:
        return self.keys.signer.facility_id

    def statements(self, *endpoints: str) -> bytes:
        secrets = self.keys.secrets
        return make_statements(
            secrets.node_key,
            self.keys.signer.signer,
            [self.tls.certificate_der],
            secrets.seal_keys[0].public,
            Profile(self.name, endpoints, (), int(time())),
        )

    def pair_with(self, node: Node) -> Identity:
        """Have a real node pin this peer; return that node's identity."""
        file = self._folder / f"{self.name}.statements"
        file.write_bytes(self.statements())
        node.run("peers", "pair", str(file))
        theirs = self._folder / "theirs.statements"
        node.run("id", "--export", str(theirs), "--no-qr")
        return Identity.decode(theirs.read_bytes())

    @asynccontextmanager
    async def channel(
        self, node: Node, identity: Identity, tls: TlsIdentity | None = None
    ) -> AsyncGenerator[Channel]:
        """Connect to a real node's peer service."""
        async with open_channel(
            node.addresses["peer"],
            credentials=client_credentials(tls or self.tls, identity.certificates),
            server_name=server_name(identity.node_id),
            largest_answer=CARRY_BOUND.size,
        ) as channel:
            yield channel

    @asynccontextmanager
    async def carry(self, channel: Channel, identity: Identity) -> AsyncGenerator[GrpcLink]:
        """Open a Carry stream."""
        async with channel.stream(CARRY) as stream:
            link = GrpcLink(
                identity.facility_id,
                Route.DIRECT,
                stream.read_bytes,
                stream.write,
                lambda _: frozenset(),
            )
            async with open_link(link):
                yield link


@dataclass(frozen=True)
class Forgery:
    """A package with its documents, to be tampered with by `dataclasses.replace`."""

    peer: HostilePeer
    key: DataKey
    manifest: Document
    delivery: Document
    sealed_key: bytes
    chunks: dict[bytes, bytes]

    def redelivered(self, **changes: object) -> "Forgery":
        """Return the same with a delivery that says otherwise, and is rightly signed."""
        delivery = replace(open_delivery(self.delivery), **changes)  # type: ignore[arg-type]
        return replace(self, delivery=sign_delivery(delivery, self.peer.keys.signer))

    def with_key(self, key: DataKey, identity: Identity, transfer_id: TransferId) -> "Forgery":
        """Return the same with a key sealed and named as the rules say, for a transfer."""
        sealed_key = key.seal_to(identity.seal_key, transfer_id)
        changed = replace(self, sealed_key=sealed_key)
        return changed.redelivered(transfer_id=transfer_id, sealed_key_digest=sha256(sealed_key))

    async def send(self, link: GrpcLink) -> Message | None:
        """Send it by the rules; return the receiver's last word."""
        await link.send(Offer(self.delivery, self.sealed_key))
        while True:
            message = await link.receive()
            match message:
                case Want(chunk_ids):
                    for chunk_id in chunk_ids:
                        await link.send(ChunkFrame(chunk_id, self.chunks[chunk_id.digest]))
                case _ if getattr(message, "is_manifest_needed", False):
                    await link.send(ManifestFrame(self.manifest.encode()))
                case _ if type(message).__name__ in ("Progress", "Answer"):
                    continue
                case _:
                    return message


def forge(
    peer: HostilePeer,
    identity: Identity,
    study: int,
    *,
    instance: bytes | None = None,
    entry_changes: dict[str, object] | None = None,
    chunk_changes: dict[str, object] | None = None,
    origin: HostilePeer | None = None,
    split_at: int = 0,
    attachments: Sequence[tuple[str, bytes, Sequence[str]]] = (),
    needs: Sequence[str] = (),
) -> Forgery:
    """Make a package of one instance for a real node; the changes make its manifest lie.

    Attachments are media type, bytes, and what they are about; each has a chunk of its own.
    """
    content = make_instance(study, 1) if instance is None else instance
    key = DataKey.new()
    parts = [content[:split_at], content[split_at:]] if split_at else [content]
    keys = key.sealing_keys()
    made = [
        seal_chunk(keys, key.package_id, n, [Piece(part, digest(part))])
        for n, part in enumerate([*parts, *(attached for _, attached, _ in attachments)])
    ]
    chunks = [replace(c, **(chunk_changes or {})) for c, _ in made]  # type: ignore[arg-type]
    entry = InstanceEntry(
        "1.2.840.10008.5.1.4.1.1.2",  # type: ignore[arg-type]
        f"{study_uid(study)}.1.1",  # type: ignore[arg-type]
        f"{study_uid(study)}.1",  # type: ignore[arg-type]
        "1.2.840.10008.1.2.1",  # type: ignore[arg-type]
        len(content),
        digest(content),
        tuple(Extent(n, 0, len(part)) for n, part in enumerate(parts)),
    )
    entry = replace(entry, **(entry_changes or {}))  # type: ignore[arg-type]
    signer = (origin or peer).keys.signer
    manifest = Manifest(
        key.package_id,
        signer.facility_id,
        StudyInstanceUID(study_uid(study)),
        time(),
        (entry,),
        tuple(chunks),
        tuple(
            AttachmentEntry(
                media_type,
                len(attached),
                digest(attached),
                (Extent(n, 0, len(attached)),),
                tuple(about),
            )
            for n, (media_type, attached, about) in enumerate(attachments, len(parts))
        ),
        tuple(needs),
    )
    document = sign_manifest(manifest, signer)
    transfer_id = TransferId.new()
    sealed_key = key.seal_to(identity.seal_key, transfer_id)
    delivery = Delivery(
        transfer_id=transfer_id,
        package_id=key.package_id,
        origin=signer.facility_id,
        manifest_digest=document.digest(),
        manifest_bytes=len(document.encode()),
        sender=peer.facility,
        receiver=identity.facility_id,
        sealed_key_digest=sha256(sealed_key),
        created_time=time(),
        expires_time=time() + 3600,
        priority=Priority.ROUTINE,
        recipient="",
        note="",
        instances=1,
        sealed_bytes=manifest.sealed_bytes,
    )
    return Forgery(
        peer,
        key,
        document,
        sign_delivery(delivery, peer.keys.signer),
        sealed_key,
        {c.chunk_id.digest: sealed for c, (_, sealed) in zip(chunks, made, strict=True)},
    )


__all__ = ["CARRY", "HELLO", "WATCH", "ChunkEntry", "Forgery", "HostilePeer", "forge", "hello"]
