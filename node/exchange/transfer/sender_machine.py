"""The sender's state machine for one transfer, without I/O: messages go in, actions come out.

The receiver drives. This machine checks that it follows the rules: it answers once, wants only
chunks that the manifest names and at most a window at once, and gives a receipt for exactly this
delivery.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from node.documents.delivery import Delivery
from node.documents.messages import (
    Answer,
    AnswerKind,
    Message,
    Problem,
    Progress,
    ReceiptMessage,
    Want,
)
from node.documents.receipt import check_receipt, open_receipt
from node.documents.signed import Document
from node.domain.ids import ChunkId
from node.domain.manifest import ChunkEntry, Manifest
from node.errors import NotOffered, RemoteProtocolError

MAX_WANTS = 3
"""How often one chunk may be wanted on one link: a disk may lose it twice, and no oftener."""

WINDOW_BYTES = 16 * 2**20
"""How many bytes may be wanted and not yet sent: the most that a broken link loses."""


@dataclass(frozen=True, slots=True)
class Begin:
    """The receiver has accepted; what comes now is on its way."""


@dataclass(frozen=True, slots=True)
class SendManifest:
    """Send the manifest document in frames."""


@dataclass(frozen=True, slots=True)
class SendChunk:
    """Send one chunk in frames."""

    entry: ChunkEntry


@dataclass(frozen=True, slots=True)
class NoteProgress:
    """Note how many sealed bytes the receiver has stored durably."""

    durable_bytes: int


@dataclass(frozen=True, slots=True)
class KeepReceipt:
    """Keep the verified receipt durably, say so, and end."""

    receipt: Document


@dataclass(frozen=True, slots=True)
class Held:
    """A person at the receiver decides; end, and offer again later."""


@dataclass(frozen=True, slots=True)
class ComeLater:
    """The receiver takes it later; end, and offer again. It may say why."""

    retry_seconds: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Declined:
    """The receiver said no for good."""

    reason: str


@dataclass(frozen=True, slots=True)
class Broken:
    """The receiver reports a problem; final or not."""

    problem: Problem


Action = (
    Begin
    | SendManifest
    | SendChunk
    | NoteProgress
    | KeepReceipt
    | Held
    | ComeLater
    | Declined
    | Broken
)


@dataclass(slots=True)
class _Owed:
    """Bytes that are wanted on the links of one transfer and have not left."""

    size: int = 0


class SenderMachine:
    """Starts after the offer was sent; pass it every message with `got`."""

    def __init__(
        self,
        delivery: Delivery,
        delivery_digest: bytes,
        manifest: Manifest,
        *,
        is_manifest_offered: bool = False,
        owed: _Owed | None = None,
    ) -> None:
        """Prepare; `is_manifest_offered` says that the offer has the manifest in it."""
        self._owed = owed or _Owed()  # shared with further links
        self._is_manifest_offered = is_manifest_offered
        self._delivery = delivery
        self._delivery_digest = delivery_digest
        self._manifest = manifest
        self._entries: Mapping[ChunkId, ChunkEntry] = {c.chunk_id: c for c in manifest.chunks}
        self._is_accepted = False
        self._outstanding_bytes = 0
        self._wants: Counter[ChunkId] = Counter()

    def beside(self) -> "SenderMachine":
        """Return the machine of a further link of the transfer; there no answer need come."""
        return SenderMachine(
            self._delivery,
            self._delivery_digest,
            self._manifest,
            is_manifest_offered=True,
            owed=self._owed,
        )

    def leave(self) -> None:
        """Note that this link ends: what was wanted on it is wanted on another."""
        self._owed.size -= self._outstanding_bytes
        self._outstanding_bytes = 0

    @property
    def is_owing(self) -> bool:
        """Whether something is wanted that has not left: then the receiver waits for us."""
        return self._outstanding_bytes > 0

    def got(self, message: Message) -> list[Action]:
        """Return what to do about a message.

        Raises:
            RemoteProtocolError: it may not come now.
            NotOffered: it wants a chunk that this delivery lacks, or wants one too often.
            BadSignature, BadReceipt: the receipt is not valid for this delivery.
        """
        match message:
            case Problem():
                return [Broken(message)]
            case Answer() if not self._is_accepted:
                return self._got_answer(message)
            case Want() if self._is_accepted or self._is_manifest_offered:
                return [*self._begin(), *self._got_want(message)]
            case Progress() if self._is_accepted:
                return self._got_progress(message)
            case ReceiptMessage():
                return self._got_receipt(message.receipt)
        raise RemoteProtocolError(f"unexpected {type(message).__name__} message")

    def chunk_sent(self, entry: ChunkEntry) -> None:
        """Note that a chunk has left: the window opens by its size."""
        self._outstanding_bytes -= entry.sealed_bytes
        self._owed.size -= entry.sealed_bytes

    def _got_answer(self, answer: Answer) -> list[Action]:
        match answer.kind:
            case AnswerKind.HELD:
                return [Held()]
            case AnswerKind.LATER:
                return [ComeLater(answer.retry_seconds, answer.reason)]
            case AnswerKind.DECLINED:
                return [Declined(answer.reason)]
        begin = self._begin()
        return [*begin, SendManifest()] if answer.is_manifest_needed else begin

    def _begin(self) -> list[Action]:
        if self._is_accepted:
            return []
        self._is_accepted = True
        return [Begin()]

    def _got_want(self, want: Want) -> list[Action]:
        actions: list[Action] = []
        for chunk_id in want.chunk_ids:
            entry = self._entries.get(chunk_id)
            if entry is None:
                raise NotOffered(f"chunk {chunk_id.short()} is not part of this delivery")
            self._wants[chunk_id] += 1
            if self._wants[chunk_id] > MAX_WANTS:
                raise NotOffered(f"chunk {chunk_id.short()} was requested too often")
            self._outstanding_bytes += entry.sealed_bytes
            self._owed.size += entry.sealed_bytes
            actions.append(SendChunk(entry))
        if self._owed.size > WINDOW_BYTES:
            raise RemoteProtocolError("the receiver wants more at once than the window allows")
        return actions

    def _got_progress(self, progress: Progress) -> list[Action]:
        return [NoteProgress(min(max(progress.durable_bytes, 0), self._manifest.sealed_bytes))]

    def _got_receipt(self, document: Document) -> list[Action]:
        check_receipt(
            open_receipt(document),
            delivery=self._delivery,
            delivery_digest=self._delivery_digest,
            manifest=self._manifest,
        )
        return [KeepReceipt(document)]
