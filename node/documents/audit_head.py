"""The head of an audit log as a signed document: what leaves the machine."""

import json
from base64 import b64decode, b64encode

from emix.documents.v1 import documents_pb2 as pb

from node.documents.bodies import parse_body
from node.documents.signed import Document, DocumentSigner
from node.domain.heads import MAX_SEQUENCE, Head
from node.domain.ids import FacilityId, NodeId
from node.errors import BadSignature, DocumentError

KIND = "audit-head"
FILE_FORMAT = "emix-audit-head/1"
MAX_HEAD_BYTES = 2048
MAX_FILE_BYTES = 16 * 1024


def sign_head(
    sequence: int, digest: bytes, time_milliseconds: int, signer: DocumentSigner
) -> Document:
    """Return the head of this node's log as a signed document."""
    body = pb.AuditHead(
        facility=signer.facility_id.digest,
        node_id=signer.node_id.digest,
        sequence=sequence,
        digest=digest,
        time_milliseconds=time_milliseconds,
    )
    return signer.sign(KIND, body.SerializeToString())


def open_head(encoded: bytes) -> Head:
    """Return the head in an encoded document, after verifying that its own node signed it.

    Raises:
        BadSignature: a signature does not verify, or it is the head of another's log.
        DocumentError: these bytes are no head.
    """
    if len(encoded) > MAX_HEAD_BYTES:
        raise DocumentError("the audit head is too long")
    document = Document.decode(encoded)
    facility, node = document.verify(KIND)
    wire = parse_body(pb.AuditHead, document.body, "audit head")
    try:
        head = Head(
            FacilityId(wire.facility),
            NodeId(wire.node_id),
            wire.sequence,
            wire.digest,
            wire.time_milliseconds,
        )
    except ValueError as exc:
        raise DocumentError("the audit head is malformed") from exc
    if (head.facility, head.node) != (facility, node):
        raise BadSignature("the audit head is from another node's log")
    is_possible = 1 <= head.sequence <= MAX_SEQUENCE and 0 <= head.time_milliseconds < 2**48
    if not is_possible or len(head.digest) != 32:
        raise DocumentError("the audit head has invalid numbers")
    return head


def head_file(encoded: bytes) -> bytes:
    """Return the bytes of a file that keeps a head."""
    value = {"format": FILE_FORMAT, "head": b64encode(encoded).decode()}
    return json.dumps(value, indent=1).encode() + b"\n"


def read_head_file(data: bytes) -> bytes:
    """Return the encoded head in a file's bytes; `DocumentError` if there is none."""
    try:
        value = json.loads(data[:MAX_FILE_BYTES])
        if value["format"] != FILE_FORMAT:
            raise DocumentError(f"not an audit head of format {FILE_FORMAT}")
        return b64decode(value["head"], validate=True)
    except (ValueError, KeyError, TypeError) as exc:
        raise DocumentError("the file is not an exported audit head, or is damaged") from exc
