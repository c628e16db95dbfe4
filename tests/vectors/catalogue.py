"""What is kept as a vector: how it is made, and how it is opened.

Keys are fixed, so that a later version opens what an earlier one sealed. Whoever changes how
something is made makes a new folder of vectors; how it is opened has to go on with the old ones.
"""

import dataclasses
import enum
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from emix.exchange.v1 import exchange_pb2

from node.chunks.format import Piece, check_pieces, seal_chunk, unseal_chunk
from node.codec.kinds import Codec
from node.crypto.certificates import make_directory_root, make_tls_identity
from node.crypto.digests import digest, sha256
from node.crypto.keyring import Secrets
from node.crypto.keys import DataKey, SealKey, open_sealed_key, unwrap
from node.crypto.sealing import Suite
from node.crypto.signing import SigningKey, network_id, node_id
from node.documents.audit_head import open_head, sign_head
from node.documents.delivery import Delivery, open_delivery, sign_delivery
from node.documents.identity import Identity, Profile, make_statements
from node.documents.lists import (
    apply_change,
    delegate_lists,
    make_change,
    open_list,
    sign_list,
)
from node.documents.manifest import open_manifest, sign_manifest
from node.documents.messages import (
    Answer,
    AnswerKind,
    ChunkFrame,
    Collect,
    ManifestFrame,
    Offer,
    Problem,
    Progress,
    ReceiptKept,
    ReceiptMessage,
    Want,
    Withdraw,
)
from node.documents.network import (
    JoinLetter,
    Listing,
    claim,
    invite,
    open_listing,
    open_membership,
    sign_listing,
)
from node.documents.receipt import Proof, Receipt, sign_receipt
from node.documents.signed import Document, DocumentSigner, certify_node
from node.documents.summary import open_summary, seal_summary
from node.documents.tickets import Ticket, certify_tickets, open_ticket, read_ticket_signer
from node.domain.ids import ChunkId, FacilityId, InvitationId, TransferId
from node.domain.manifest import AttachmentEntry, ChunkEntry, Extent, InstanceEntry, Manifest
from node.domain.patients import Patient
from node.domain.pixels import TO_THE_END, Pixels
from node.domain.summary import Summary
from node.domain.transfers import Priority
from node.federation.connections import wire
from node.store.envelopes import Envelope, Envelopes
from tests.support.examining import LocalExpander
from tests.vectors import homes

NOW = 1_800_000_000.0
RELAY = "relay.example.org:7430"


def _key(name: str) -> bytes:
    return sha256(b"emix test vectors\0", name.encode())


FACILITY, NODE = SigningKey(_key("facility")), SigningKey(_key("node"))
OTHER_FACILITY, OTHER_NODE = SigningKey(_key("other facility")), SigningKey(_key("other node"))
NETWORK, LIST_KEY = SigningKey(_key("network")), SigningKey(_key("list key"))
TICKET_KEY = SigningKey(_key("ticket key"))
SEAL_KEY, DATA_KEY = SealKey(_key("seal key")), DataKey(_key("data key"))
EPOCH, EPOCH_KEY = 3, _key("epoch")
TRANSFER = TransferId(_key("transfer")[:16])
NETWORK_ID = network_id(NETWORK.public)
SIGNER = DocumentSigner(NODE, certify_node(FACILITY, NODE, NOW))
RECEIVER = DocumentSigner(OTHER_NODE, certify_node(OTHER_FACILITY, OTHER_NODE, NOW))
SECRETS = Secrets(NODE, (SEAL_KEY,), (), {EPOCH: EPOCH_KEY})
PLAINTEXT = struct.pack("<2048H", *(n % 600 for n in range(2048)))
_NOISE = b"".join(sha256(b"noise %d" % n) for n in range(1024))


def _noisy(n: int) -> int:
    x, y = n % 128, n // 128
    noise = sum(_NOISE[(4 * n + i) % len(_NOISE)] % 6 for i in range(4))
    return 800 + (x - 64) ** 2 // 4 + (y - 128) ** 2 // 3 + noise


NOISY = struct.pack("<32768H", *map(_noisy, range(32768)))


@dataclasses.dataclass(frozen=True)
class Vector:
    """One file.

    Attributes:
        make: Returns its bytes, as this version writes them.
        open: Returns what bytes of any version say.
    """

    make: Callable[[], bytes]
    open: Callable[[bytes], Any]


def described(value: Any) -> Any:
    """Return a value as JSON has it; keys are left out."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, enum.Enum):
        return value.name
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {f.name: described(getattr(value, f.name)) for f in fields if f.repr}
    if isinstance(value, Mapping):
        return {str(described(k)): described(v) for k, v in value.items()}
    if isinstance(value, frozenset | set):
        return sorted(map(described, value))
    if isinstance(value, tuple | list):
        return [described(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


# -- chunks and envelopes ---------------------------------------------------------------------


_FORMS: dict[str, Pixels | None] = {
    "plain": None,
    "rows": Pixels(64, 4000, 2, 1, 128),
    "colours": Pixels(64, 3999, 1, 3, 96),
    "packed": Pixels(0, TO_THE_END),
    "small": Pixels(0, 65536, 2, 1, 256),
}


def _chunk(suite: Suite, form: str) -> Vector:
    is_small = form == "small"
    plaintext = NOISY if is_small else PLAINTEXT

    def make() -> bytes:
        piece = Piece(plaintext, digest(plaintext), _FORMS[form])
        keys, name = DATA_KEY.sealing_keys(), DATA_KEY.package_id
        entry, sealed = seal_chunk(keys, name, 7, [piece], suite, is_small=is_small)
        return entry.chunk_id.digest + entry.pieces_digest + sealed

    def open_(data: bytes) -> Any:
        entry = ChunkEntry(7, ChunkId(data[:32]), len(plaintext), len(data) - 64, data[32:64])
        chunk = unseal_chunk(DATA_KEY.sealing_keys(), DATA_KEY.package_id, entry, data[64:])
        assert LocalExpander().expand(chunk) == plaintext
        check_pieces(entry, LocalExpander().digest_pieces(chunk, [len(plaintext)]))
        return {"suite": Suite(data[69]).name, "codec": Codec(data[70]).name}

    return Vector(make, open_)


def _manifest() -> Manifest:
    chunk = ChunkEntry(7, ChunkId(_key("chunk")), 4096, 3000, _key("plaintext"))
    instance = InstanceEntry(
        "1.2.840.10008.5.1.4.1.1.2",  # type: ignore[arg-type]
        "1.2.3.4.5",  # type: ignore[arg-type]
        "1.2.3.4",  # type: ignore[arg-type]
        "1.2.840.10008.1.2.1",  # type: ignore[arg-type]
        4096,
        _key("instance"),
        (Extent(0, 0, 4096),),
    )
    return Manifest(
        DATA_KEY.package_id,
        SIGNER.facility_id,
        "1.2.3",  # type: ignore[arg-type]
        NOW,
        (instance,),
        (chunk,),
    )


def _wrapped() -> bytes:
    return DATA_KEY.wrap(SECRETS.epoch_keys(EPOCH), EPOCH, SIGNER.facility_id)


def _make_attachments() -> bytes:
    """Return a manifest that names a file that is not DICOM, beside its instances."""
    manifest = _manifest()
    index = len(manifest.chunks)
    chunk = ChunkEntry(77, ChunkId(_key("attached")), 70, 60, _key("attached plaintext"))
    attachments = (
        AttachmentEntry(
            "application/pdf", 50, _key("a report"), (Extent(index, 0, 50),), ("1.2.3.4", "1.2.3.5")
        ),
        AttachmentEntry("text/plain", 20, _key("a text"), (Extent(index, 50, 20),)),
    )
    whole = dataclasses.replace(manifest, chunks=(*manifest.chunks, chunk), attachments=attachments)
    return sign_manifest(whole, SIGNER).encode()


def _make_needs() -> bytes:
    """Return a manifest that says what opening its chunks takes."""
    return sign_manifest(dataclasses.replace(_manifest(), needs=("jpeg-ls",)), SIGNER).encode()


def _open_manifest(data: bytes) -> Any:
    return open_manifest(Document.decode(data))


def _make_envelope() -> bytes:
    with TemporaryDirectory() as folder:
        envelopes = Envelopes(Path(folder), SECRETS)
        manifest = sign_manifest(_manifest(), SIGNER).encode()
        envelopes.put(
            Envelope(DATA_KEY.package_id, SIGNER.facility_id, EPOCH, _wrapped(), manifest, b"")
        )
        [path] = envelopes.paths()
        return path.read_bytes()


def _open_envelope(data: bytes) -> Any:
    with TemporaryDirectory() as folder:
        envelopes = Envelopes(Path(folder), SECRETS)
        path = Path(folder) / envelopes.name(SIGNER.facility_id, DATA_KEY.package_id)
        path.write_bytes(data)
        return envelopes.read(path)


def _open_wrapped(data: bytes) -> Any:
    keys = SECRETS.epoch_keys(EPOCH)
    return unwrap(keys, EPOCH, SIGNER.facility_id, DATA_KEY.package_id, data).package_id


def _open_sealed(data: bytes) -> Any:
    return open_sealed_key(SEAL_KEY.private, TRANSFER, DATA_KEY.package_id, data).package_id


# -- documents of a transfer ------------------------------------------------------------------


def _summary() -> Summary:
    patient = Patient("Doe^Jane", "4711", "19700101", "F")
    return Summary((patient,), "1.2.3", "20260101", "CT chest", "CT", "A-17")


def _delivery() -> Delivery:
    manifest = sign_manifest(_manifest(), SIGNER)
    return Delivery(
        transfer_id=TRANSFER,
        package_id=DATA_KEY.package_id,
        origin=SIGNER.facility_id,
        manifest_digest=manifest.digest(),
        manifest_bytes=len(manifest.encode()),
        sender=SIGNER.facility_id,
        receiver=RECEIVER.facility_id,
        sealed_key_digest=_key("sealed key"),
        created_time=NOW,
        expires_time=NOW + 3600,
        priority=Priority.URGENT,
        recipient="Dr. Roe",
        note="second opinion",
        instances=1,
        sealed_bytes=3000,
    )


def _proof() -> Proof:
    manifest = sign_manifest(_manifest(), SIGNER)
    delivery = sign_delivery(_delivery(), SIGNER)
    receipt = Receipt(
        TRANSFER,
        delivery.digest(),
        manifest.digest(),
        DATA_KEY.package_id,
        RECEIVER.facility_id,
        1,
        4096,
        NOW + 60,
    )
    return Proof(manifest, delivery, sign_receipt(receipt, RECEIVER))


def _messages() -> dict[str, Any]:
    proof = _proof()
    return {
        "collect": Collect(TRANSFER),
        "offer": Offer(proof.delivery, b"sealed key"),
        "offer-with-manifest": Offer(proof.delivery, b"sealed key", proof.manifest),
        "withdraw": Withdraw(TRANSFER),
        "answer": Answer(AnswerKind.LATER, 60, "busy", is_manifest_needed=True),
        "manifest-frame": ManifestFrame(b"bytes of a manifest"),
        "want": Want((ChunkId(_key("chunk")),)),
        "chunk-frame": ChunkFrame(ChunkId(_key("chunk")), b"bytes of a chunk"),
        "progress": Progress(1000, 3000),
        "receipt": ReceiptMessage(proof.receipt),
        "receipt-kept": ReceiptKept(),
        "problem": Problem("busy", "come later", is_final=False),
    }


def _message(message: Any) -> Vector:
    def open_(data: bytes) -> Any:
        found = wire.from_wire(exchange_pb2.CarryMessage.FromString(data))
        return {type(found).__name__: found}

    return Vector(lambda: wire.to_wire(message).SerializeToString(), open_)


# -- networks ---------------------------------------------------------------------------------


def _statements() -> bytes:
    tls = make_tls_identity(node_id(NODE.public), NOW)
    profile = Profile("Great Falls Clinic", ("a.example.org:7410",), ("a.example.org:7411",))
    profile = dataclasses.replace(profile, issued_seconds=int(NOW))
    return make_statements(NODE, SIGNER.signer, [tls.certificate_der], SEAL_KEY.public, profile)


def _letter() -> JoinLetter:
    root = make_directory_root(NOW)
    invitation, token = invite(NETWORK, "Great Falls Clinic", NOW)
    return JoinLetter(
        invitation,
        token,
        NETWORK.public,
        "Montana",
        ("dir.example.org:7420",),
        root.certificate_der,
    )


def _members(count: int) -> dict[InvitationId, FacilityId]:
    names = [_key(f"member {n}") for n in range(count)]
    return {InvitationId(name): FacilityId(sha256(name)) for name in names}


def _list(number: int) -> bytes:
    certificate = delegate_lists(NETWORK, LIST_KEY.public, NOW + 86400)
    return sign_list(
        LIST_KEY,
        NETWORK_ID,
        number,
        _members(number),
        frozenset({InvitationId(_key("revoked"))}),
        NOW,
        certificate=certificate,
    )


def _open_list(data: bytes) -> Any:
    return open_list(data, NETWORK.public, NOW)


def _make_change() -> bytes:
    base, shown = _list(20), _list(21)
    return make_change(_open_list(base), _open_list(shown), shown)


def _open_change(data: bytes) -> Any:
    return _open_list(apply_change(_open_list(_list(20)), data))


def _ticket() -> bytes:
    certificate = certify_tickets(NETWORK, TICKET_KEY.public, [RELAY], NOW + 86400)
    ticket = Ticket(
        _key("ticket")[:16],
        RELAY,
        True,
        SIGNER.facility_id,
        node_id(NODE.public),
        RECEIVER.facility_id,
        node_id(OTHER_NODE.public),
        int(NOW) + 60,
    )
    return read_ticket_signer(TICKET_KEY, certificate).sign(ticket)


def _listing() -> bytes:
    listing = Listing("Great Falls", ("Radiology",), ("Dr. Roe",), "emix/0", 1, int(NOW))
    return sign_listing(NODE, Identity.decode(_statements()), listing)


VECTORS: dict[str, Vector] = {
    **{
        f"chunk-{suite.name.lower()}-{form}": _chunk(suite, form)
        for suite in Suite
        for form in _FORMS
    },
    "home": Vector(homes.make, homes.open_),
    "envelope": Vector(_make_envelope, _open_envelope),
    "manifest-attachments": Vector(_make_attachments, _open_manifest),
    "manifest-needs": Vector(_make_needs, _open_manifest),
    "wrapped-key": Vector(_wrapped, _open_wrapped),
    "sealed-key": Vector(lambda: DATA_KEY.seal_to(SEAL_KEY.public, TRANSFER), _open_sealed),
    "summary": Vector(
        lambda: seal_summary(_summary(), DATA_KEY, TRANSFER),
        lambda data: open_summary(data, DATA_KEY, TRANSFER),
    ),
    "delivery": Vector(
        lambda: sign_delivery(_delivery(), SIGNER).encode(),
        lambda data: open_delivery(Document.decode(data)),
    ),
    "proof": Vector(lambda: _proof().encode(), lambda data: Proof.decode(data).verify()),
    "audit-head": Vector(
        lambda: sign_head(9, _key("entry"), int(NOW * 1000), SIGNER).encode(), open_head
    ),
    "statements": Vector(_statements, Identity.decode),
    "join-letter": Vector(
        lambda: _letter().encode().encode(), lambda data: JoinLetter.decode(data.decode())
    ),
    "membership": Vector(
        lambda: claim(_letter(), FACILITY.public, NOW).encoded,
        lambda data: open_membership(data, NETWORK.public),
    ),
    "list": Vector(lambda: _list(2), _open_list),
    "list-change": Vector(_make_change, _open_change),
    "listing": Vector(_listing, lambda data: open_listing(data, Identity.decode(_statements()))),
    "ticket": Vector(_ticket, lambda data: open_ticket(data, NETWORK.public, NOW)),
    **{f"message-{name}": _message(message) for name, message in _messages().items()},
}
