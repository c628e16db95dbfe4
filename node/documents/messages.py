"""The messages of a transfer as values; `node.federation.connections.wire` puts them on the wire.

They are the same whoever dialled. `proto/emix/exchange/v1/exchange.proto` says who sends which.
"""

import enum
from dataclasses import dataclass

from node.documents.signed import Document
from node.domain.ids import ChunkId, TransferId

FRAME_BYTES = 2 << 20
"""Of a chunk or a manifest in one message."""

MOST_FURTHER_LINKS = 7
"""Beside the first, of one transfer."""

MOST_OFFERED_BYTES = 32 * 1024
"""How long a manifest may be that lies in its offer."""


class AnswerKind(enum.Enum):
    """What becomes of an offer."""

    ACCEPTED = "accepted"
    HELD = "held"
    LATER = "later"
    DECLINED = "declined"


@dataclass(frozen=True, slots=True)
class Collect:
    """The receiver, which dialled, requests a waiting transfer."""

    transfer_id: TransferId


@dataclass(frozen=True, slots=True)
class Offer:
    """The sender shows its delivery, the data key sealed to the receiver, and a short manifest.

    A receiver that accepts an offer with a manifest need not answer: it goes on with what it wants.
    It leaves something to be wanted on each of the further links that the sender may open. Those
    begin with the same offer, which then says that it is a further one.
    """

    delivery: Document
    sealed_key: bytes
    manifest: Document | None = None
    further_links: int = 0
    is_further: bool = False


@dataclass(frozen=True, slots=True)
class Withdraw:
    """The sender has taken a transfer back."""

    transfer_id: TransferId


@dataclass(frozen=True, slots=True)
class Answer:
    """The receiver's decision."""

    kind: AnswerKind
    retry_seconds: int = 0
    reason: str = ""
    is_manifest_needed: bool = False


@dataclass(frozen=True, slots=True)
class ManifestFrame:
    """The next bytes of the encoded manifest document."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Want:
    """Chunks to send next."""

    chunk_ids: tuple[ChunkId, ...]


@dataclass(frozen=True, slots=True)
class ChunkFrame:
    """The next bytes of a wanted chunk; `chunk_id` stands in its first frame only."""

    chunk_id: ChunkId | None
    data: bytes | memoryview


@dataclass(frozen=True, slots=True)
class Progress:
    """Sealed bytes that are durable at the receiver, and in all."""

    durable_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class ReceiptMessage:
    """The receiver's signed receipt."""

    receipt: Document


@dataclass(frozen=True, slots=True)
class ReceiptKept:
    """The sender has verified and kept the receipt."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something is wrong; `is_final` ends the whole transfer."""

    code: str
    message: str
    is_final: bool


Message = (
    Collect
    | Offer
    | Withdraw
    | Answer
    | ManifestFrame
    | Want
    | ChunkFrame
    | Progress
    | ReceiptMessage
    | ReceiptKept
    | Problem
)
