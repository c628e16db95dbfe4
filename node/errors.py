"""Every error that the node raises on purpose, with its code and exit status.

Messages name ids, never patient data, and say what to do next where something can be
done. Errors of other libraries are translated into these once, at the adapter that calls
the library.
"""

import enum
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType


class Code(enum.StrEnum):
    """What went wrong, for machines: on the wire, in `--json`, in logs."""

    INTERNAL = "internal"
    USAGE = "usage"
    CONFIG = "config"
    NOT_FOUND = "not-found"
    CONFLICT = "conflict"
    SEVERAL_ORIGINS = "several-origins"
    SEVERAL_PATIENTS = "several-patients"
    STORE = "store"
    STORE_FULL = "store-full"
    STORE_LOCKED = "store-locked"
    STORE_DENIED = "store-denied"
    STORE_DAMAGED = "store-damaged"
    CHUNK_NOT_FOUND = "chunk-not-found"
    CHUNK_TOO_LARGE = "chunk-too-large"
    CHUNK_DAMAGED = "chunk-damaged"
    KEYS = "keys"
    DICOM = "dicom"
    PROTOCOL_REMOTE = "protocol-remote"
    DOCUMENT = "document"
    BAD_MANIFEST = "bad-manifest"
    BAD_DELIVERY = "bad-delivery"
    BAD_RECEIPT = "bad-receipt"
    BAD_DATA_KEY = "bad-data-key"
    BAD_SIGNATURE = "bad-signature"
    NOT_OFFERED = "not-offered"
    PEER_UNREACHABLE = "peer-unreachable"
    PEER_TIMEOUT = "peer-timeout"
    PEER_REFUSED = "peer-refused"
    PEER_LACKS = "peer-lacks"
    PEER_BUSY = "peer-busy"
    LINK_ALTERED = "link-altered"
    PEER_UNTRUSTED = "peer-untrusted"
    DENIED = "denied"


class NodeError(Exception):
    """Base of all errors below; raised itself only for what has no better name.

    Attributes:
        facts: What machines are told beside the message, with --json. No patient data.
        is_told: Whether the other side of a call said so, rather than the connection to it.
    """

    code = Code.INTERNAL
    exit_code = 1
    is_final: bool | None = None  # as the other side reports it; None for our own
    facts: Mapping[str, object] = MappingProxyType({})
    is_remote = False


class UsageError(NodeError):
    """A request that cannot be meant: the caller should change it."""

    code = Code.USAGE
    exit_code = 2


class NotMeant(UsageError):
    """A person was asked, and said no."""

    exit_code = 1


class ConfigError(NodeError):
    """The configuration or the home directory is wrong; lists every problem found."""

    code = Code.CONFIG
    exit_code = 3


class NotFound(NodeError):
    """Nothing here has that id or name."""

    code = Code.NOT_FOUND
    exit_code = 4


class Conflict(NodeError):
    """The request contradicts what is already so: an ambiguous prefix, a state passed."""

    code = Code.CONFLICT
    exit_code = 5


class Denied(NodeError):
    """Who asks may not do that here."""

    code = Code.DENIED
    exit_code = 6


class SeveralOrigins(Conflict):
    """Several facilities sealed different images of a study: a person says whose are meant."""

    code = Code.SEVERAL_ORIGINS


class SeveralPatients(Conflict):
    """A study has several patients' images: a person says that all are meant."""

    code = Code.SEVERAL_PATIENTS


class StoreError(NodeError):
    """The local store failed; the node says so and acknowledges nothing."""

    code = Code.STORE
    exit_code = 10


class StoreAway(StoreError):
    """A database or object store on another machine does not answer; the message names neither."""


class StoreFull(StoreError):
    """Writing would eat into the reserve that is kept so that a full disk can say so."""

    code = Code.STORE_FULL


class StoreLocked(StoreError):
    """Another process has the store open, or its keys have not been unlocked."""

    code = Code.STORE_LOCKED


class StoreDenied(StoreError):
    """This user may not use a file of the store; nothing is damaged.

    The message names the file, its owner, and what to run.
    """

    code = Code.STORE_DENIED


class DatabaseDamaged(StoreError):
    """SQLite says that the file is damaged, or is no database under this key."""

    code = Code.STORE_DAMAGED


class SyncFailed(StoreError):
    """Writing or syncing failed: the node stops and acknowledges nothing more."""


class ChunkNotFound(StoreError):
    """The store has no chunk of that id; a peer that has the package can repair it."""

    code = Code.CHUNK_NOT_FOUND


class ChunkTooLarge(StoreError):
    """More plaintext than a chunk may hold; nothing was written."""

    code = Code.CHUNK_TOO_LARGE


class ChunkDamaged(StoreError):
    """The bytes of a chunk are not those that were sealed; never returned as content."""

    code = Code.CHUNK_DAMAGED


class KeysError(NodeError):
    """The keyring cannot be opened: wrong passphrase, changed slot, missing file."""

    code = Code.KEYS
    exit_code = 11


class DicomError(NodeError):
    """A file is not the DICOM that it should be."""

    code = Code.DICOM
    exit_code = 12


class ProtocolError(NodeError):
    """Two nodes do not understand each other."""

    code = Code.PROTOCOL_REMOTE
    exit_code = 13


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol; the transfer is not resumed by itself."""

    code = Code.PROTOCOL_REMOTE


class DocumentError(NodeError):
    """A signed document is malformed or says what cannot be."""

    code = Code.DOCUMENT
    exit_code = 14


class BadSignature(DocumentError):
    """The signature, or the chain to the facility's key, does not verify."""

    code = Code.BAD_SIGNATURE


class ForeignNode(BadSignature):
    """A facility certified a node key that does not speak for it: it shows another's as its own.

    Attributes:
        facility_key: The facility's that signed so; this much is proven.
    """

    def __init__(self, message: str, facility_key: bytes = b"") -> None:
        super().__init__(message)
        self.facility_key = facility_key


class BadManifest(DocumentError):
    """The manifest contradicts itself, the delivery, or the bytes that came."""

    code = Code.BAD_MANIFEST


class BadDelivery(DocumentError):
    """The delivery is not from this peer, not to us, expired, or reused for other content."""

    code = Code.BAD_DELIVERY


class BadReceipt(DocumentError):
    """The receipt is not the receiver's word on our delivery."""

    code = Code.BAD_RECEIPT


class BadDataKey(DocumentError):
    """The data key does not open, or is not the one that the package id commits to."""

    code = Code.BAD_DATA_KEY


class NotOffered(DocumentError):
    """The peer asked for a chunk that no open delivery to it names."""

    code = Code.NOT_OFFERED


class PeerError(NodeError):
    """Another node could not be used."""

    code = Code.PEER_UNREACHABLE
    exit_code = 20


class PeerUnreachable(PeerError):
    """No connection: nobody answers at the known endpoints. Tried again by itself."""

    code = Code.PEER_UNREACHABLE


class PeerTimeout(PeerError):
    """Connected, but no progress within the time allowed. Tried again by itself."""

    code = Code.PEER_TIMEOUT


class PeerRefused(PeerError):
    """The peer answered no, for good; its reason is in the message."""

    code = Code.PEER_REFUSED


class PeerLacks(PeerError):
    """The peer's version does not understand what would be sent; nothing was."""

    code = Code.PEER_LACKS
    is_final = True


class PeerBusy(PeerError):
    """The peer has no room now and says when to come back."""

    code = Code.PEER_BUSY

    def __init__(self, message: str, retry_seconds: float = 30.0) -> None:
        """Prepare; what a peer says is clamped: 0 would be no pause, and some times never end."""
        super().__init__(message)
        self.retry_seconds = min(max(retry_seconds, 1.0), 3600.0)


class PeerLeft(PeerUnreachable):
    """The other side said that it is stopping, and ended the connection in order."""


class LinkAltered(PeerUnreachable):
    """TLS found bytes that the other side did not send. The connection is over; tried again."""

    code = Code.LINK_ALTERED


class PeerUntrusted(PeerError):
    """Not paired, removed, or not who it should be. Never retried without a person."""

    code = Code.PEER_UNTRUSTED
    exit_code = 21


def by_code(code: str) -> type[NodeError]:
    """Return the error class for a code; `NodeError` for one that we do not know."""
    return _BY_CODE.get(code, NodeError)


def _tree(cls: type[NodeError]) -> list[type[NodeError]]:
    return [cls, *(leaf for sub in cls.__subclasses__() for leaf in _tree(sub))]


# Later (more derived) classes win a shared code, except that a base keeps its own.
_BY_CODE: dict[str, type[NodeError]] = {}
for _cls in _tree(NodeError):
    _BY_CODE.setdefault(_cls.code.value, _cls)


_PUBLIC = (
    UsageError,
    NotFound,
    Conflict,
    Denied,
    ProtocolError,
    DocumentError,
    PeerError,
    StoreAway,
)
"""What is about the caller's own words, or was said for it: told as it is, but for the ways."""
_PUBLIC_WORDS = {
    Code.STORE_FULL: "that node's disk is full",
    Code.CHUNK_NOT_FOUND: "a chunk is missing in that node's store",
    Code.CHUNK_DAMAGED: "a chunk in that node's store is damaged",
    Code.PEER_UNREACHABLE: "no connection from there",
    Code.LINK_ALTERED: "no connection from there",
}


def public_text(error: NodeError) -> str:
    """Return what others than this machine's users are told of an error, in fixed words if need be.

    Messages name paths, users, addresses and programs of this machine: that is for its admin, who
    finds them in the log. The code is told as it is.
    """
    words = _PUBLIC_WORDS.get(error.code)
    if words is None and isinstance(error, _PUBLIC):
        return str(error)
    if words is None and isinstance(error, StoreError):
        words = "that node's store failed"
    return f"{words or 'the call failed at that node'}; its log says more"


def first_error(group: BaseExceptionGroup[NodeError]) -> NodeError:
    """Return the first error of a group of ours, as `except*` gives it."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, NodeError)  # noqa: S101  # the group's type says so
    return error


def first_of_ours(error: BaseException) -> NodeError | None:
    """Return an error of ours: this, or the first in a group; None if there is none."""
    if isinstance(error, BaseExceptionGroup):
        ours = error.subgroup(NodeError)
        return first_error(ours) if ours is not None else None
    return error if isinstance(error, NodeError) else None


@contextmanager
def ungrouped() -> Iterator[None]:
    """Raise the first of ours out of a group that holds only errors of ours.

    Tasks of one nursery often fail together for one reason; callers handle one error. A group
    with a cancellation in it stays one: only `except*` parts the two.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        ours, others = group.split(NodeError)
        if ours is None or others is not None:
            raise
        error = first_error(ours)
        raise error from error.__cause__  # not from the group, of which it is a part
