"""The messages of a transfer to and from protobuf.

A chunk's frame, which is nearly all that is carried, is put together and taken apart here by hand:
protobuf would copy its two megabytes five times on their way. The bytes are the same.
"""

from emix.documents.v1 import documents_pb2
from emix.exchange.v1 import exchange_pb2 as pb

from node.documents.messages import (
    FRAME_BYTES,
    MOST_FURTHER_LINKS,
    MOST_OFFERED_BYTES,
    Answer,
    AnswerKind,
    ChunkFrame,
    Collect,
    ManifestFrame,
    Message,
    Offer,
    Problem,
    Progress,
    ReceiptKept,
    ReceiptMessage,
    Want,
    Withdraw,
)
from node.documents.signed import Document
from node.domain.display_text import printable
from node.domain.ids import DIGEST_BYTES, ChunkId, TransferId
from node.errors import RemoteProtocolError
from node.rpc.bounds import Bound, parse

CARRY = Bound(FRAME_BYTES + 64 * 1024)
"""The largest message of a transfer: a frame, or a list of wanted chunks."""

# How each field with bytes of a length begins (protobuf's wire type 2).
_MESSAGE, _FRAME, _DATA = (
    bytes([form.fields_by_name[name].number << 3 | 2])
    for form, name in (
        (pb.CarryRequest.DESCRIPTOR, "message"),
        (pb.CarryMessage.DESCRIPTOR, "chunk_frame"),
        (pb.ChunkFrame.DESCRIPTOR, "data"),
    )
)
_NAMED = bytes([pb.ChunkFrame.DESCRIPTOR.fields_by_name["chunk_id"].number << 3 | 2, DIGEST_BYTES])

MAX_PROBLEM_TEXT = 500
MAX_SEALED_KEY_BYTES = 256

_ANSWER_TO_WIRE = {
    AnswerKind.ACCEPTED: pb.ANSWER_KIND_ACCEPTED,
    AnswerKind.HELD: pb.ANSWER_KIND_HELD,
    AnswerKind.LATER: pb.ANSWER_KIND_LATER,
    AnswerKind.DECLINED: pb.ANSWER_KIND_DECLINED,
}
_ANSWER_FROM_WIRE = {wire: kind for kind, wire in _ANSWER_TO_WIRE.items()}


def encode(message: Message) -> bytes:
    """Return the bytes of a CarryRequest or a CarryResponse with a message; they are the same."""
    if not isinstance(message, ChunkFrame):
        return pb.CarryRequest(message=to_wire(message)).SerializeToString()
    data = message.data
    head = _NAMED + message.chunk_id.digest if message.chunk_id else b""
    if data:
        head += _DATA + _varint(len(data))
    frame = _FRAME + _varint(len(head) + len(data)) + head
    return b"".join((_MESSAGE, _varint(len(frame) + len(data)), frame, data))


def decode(data: bytes) -> Message | None:
    """Return the message in the bytes of a CarryRequest or a CarryResponse; None for a heartbeat.

    The data of a chunk's frame are a view of `data`.

    Raises:
        RemoteProtocolError: it is larger than `CARRY`, or unknown, or malformed.
    """
    if len(data) <= CARRY.size and (frame := _chunk_frame(data)) is not None:
        return frame
    return from_wire(parse(pb.CarryRequest, data, CARRY).message)


def _chunk_frame(data: bytes) -> ChunkFrame | None:
    """Return a chunk's frame, if its bytes are just those that `encode` makes."""
    position = 0
    for tag in (_MESSAGE, _FRAME):
        if data[position : position + 1] != tag:
            return None
        length, position = _read_varint(data, position + 1)
        if position + length != len(data):
            return None
    name = None
    if data[position : position + len(_NAMED)] == _NAMED:
        start = position + len(_NAMED)
        position = start + DIGEST_BYTES
        if position > len(data):
            return None
        name = ChunkId(data[start:position])
    if data[position : position + 1] != _DATA:
        return None
    length, position = _read_varint(data, position + 1)
    if not length or position + length != len(data):
        return None
    return ChunkFrame(name, memoryview(data)[position:])


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Return a number of at most four bytes and where it ends; -1 where there is none."""
    value = 0
    for shift in (0, 7, 14, 21):
        if position >= len(data):
            break
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte <= 0x7F:
            return value, position
    return -1, position


def to_wire(message: Message) -> pb.CarryMessage:
    """Return a message's protobuf form."""
    match message:
        case ChunkFrame(chunk_id, data):
            name = chunk_id.digest if chunk_id else b""
            return pb.CarryMessage(chunk_frame=pb.ChunkFrame(chunk_id=name, data=bytes(data)))
        case Want(chunk_ids):
            return pb.CarryMessage(want=pb.Want(chunk_ids=[c.digest for c in chunk_ids]))
        case Progress(durable, total):
            progress = pb.Progress(durable_bytes=durable, total_bytes=total)
            return pb.CarryMessage(progress=progress)
        case Collect(transfer_id):
            return pb.CarryMessage(collect=pb.Collect(transfer_id=transfer_id.value))
        case Withdraw(transfer_id):
            withdraw = pb.Withdraw(transfer_id=transfer_id.value)
            return pb.CarryMessage(withdraw=withdraw)
        case Offer(delivery, sealed_key, manifest, further, is_further):
            offer = pb.Offer(
                delivery=delivery.to_wire(),
                sealed_key=sealed_key,
                manifest=manifest.to_wire() if manifest else None,
                further_streams=further,
                further=is_further,
            )
            return pb.CarryMessage(offer=offer)
        case Answer():
            return pb.CarryMessage(answer=_answer_to_wire(message))
        case ManifestFrame(data):
            return pb.CarryMessage(manifest_frame=pb.ManifestFrame(data=data))
        case ReceiptMessage(receipt):
            return pb.CarryMessage(receipt=pb.ReceiptMessage(receipt=receipt.to_wire()))
        case ReceiptKept():
            return pb.CarryMessage(receipt_kept=pb.ReceiptKept())
        case Problem(code, text, is_final):
            problem = pb.Problem(code=code, message=text[:MAX_PROBLEM_TEXT], final=is_final)
            return pb.CarryMessage(problem=problem)


def heartbeat() -> bytes:
    """Return the bytes of a heartbeat."""
    return pb.CarryRequest(message=pb.CarryMessage(heartbeat=pb.Heartbeat())).SerializeToString()


def from_wire(wire: pb.CarryMessage) -> Message | None:
    """Return the message in a protobuf form; None for a heartbeat.

    Raises:
        RemoteProtocolError: the message is unknown or malformed.
    """
    try:
        return _from_wire(wire)
    except (ValueError, KeyError) as exc:
        raise RemoteProtocolError("the message is malformed") from exc


def _from_wire(wire: pb.CarryMessage) -> Message | None:
    match wire.WhichOneof("message"):
        case "chunk_frame":
            name = wire.chunk_frame.chunk_id
            return ChunkFrame(ChunkId(name) if name else None, wire.chunk_frame.data)
        case "want":
            return Want(tuple(ChunkId(chunk_id) for chunk_id in wire.want.chunk_ids))
        case "progress":
            return Progress(wire.progress.durable_bytes, wire.progress.total_bytes)
        case "collect":
            return Collect(TransferId(wire.collect.transfer_id))
        case "withdraw":
            return Withdraw(TransferId(wire.withdraw.transfer_id))
        case "offer":
            return _offer(wire.offer)
        case "answer":
            return _answer_from_wire(wire.answer)
        case "manifest_frame":
            return ManifestFrame(wire.manifest_frame.data)
        case "receipt":
            return ReceiptMessage(_document(wire.receipt.receipt))
        case "receipt_kept":
            return ReceiptKept()
        case "problem":
            text = printable(wire.problem.message)[:MAX_PROBLEM_TEXT]
            return Problem(wire.problem.code, text, wire.problem.final)
        case "heartbeat":
            return None
    raise ValueError("an unknown message")


def transfer_id(value: bytes) -> TransferId:
    """Return the id of a transfer; `RemoteProtocolError` if it is of another length."""
    try:
        return TransferId(value)
    except ValueError as exc:
        raise RemoteProtocolError("a transfer ID does not have 16 bytes") from exc


def _offer(wire: pb.Offer) -> Offer:
    if len(wire.sealed_key) > MAX_SEALED_KEY_BYTES:
        raise ValueError("a sealed key of another length")
    manifest = None
    if wire.HasField("manifest"):
        if wire.manifest.ByteSize() > MOST_OFFERED_BYTES:
            raise ValueError("a manifest too long for an offer")
        manifest = _document(wire.manifest)
    further = min(wire.further_streams, MOST_FURTHER_LINKS)
    delivery = _document(wire.delivery)
    return Offer(delivery, wire.sealed_key, manifest, further, wire.further)


def _document(wire: documents_pb2.Document) -> Document:
    return Document.from_wire(wire)


def _answer_to_wire(answer: Answer) -> pb.Answer:
    return pb.Answer(
        kind=_ANSWER_TO_WIRE[answer.kind],
        retry_seconds=answer.retry_seconds,
        reason=answer.reason,
        manifest_needed=answer.is_manifest_needed,
    )


def _answer_from_wire(wire: pb.Answer) -> Answer:
    reason = printable(wire.reason)[:MAX_PROBLEM_TEXT]
    kind = _ANSWER_FROM_WIRE[wire.kind]
    return Answer(kind, wire.retry_seconds, reason, wire.manifest_needed)
