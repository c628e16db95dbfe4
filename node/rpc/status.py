"""Our errors as gRPC status, and back. An error that is not ours becomes INTERNAL, bare."""

from typing import Any

import grpc

from node.domain.display_text import printable
from node.errors import (
    Code,
    NodeError,
    PeerBusy,
    PeerLeft,
    PeerTimeout,
    PeerUnreachable,
    by_code,
    public_text,
)

CODE_KEY = "emix-error-code"
RETRY_KEY = "emix-retry-seconds"

_STATUS = {
    Code.USAGE: grpc.StatusCode.INVALID_ARGUMENT,
    Code.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Code.CONFLICT: grpc.StatusCode.FAILED_PRECONDITION,
    Code.STORE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Code.STORE_LOCKED: grpc.StatusCode.UNAVAILABLE,
    Code.CHUNK_NOT_FOUND: grpc.StatusCode.DATA_LOSS,
    Code.CHUNK_DAMAGED: grpc.StatusCode.DATA_LOSS,
    Code.DENIED: grpc.StatusCode.PERMISSION_DENIED,
    Code.PEER_UNTRUSTED: grpc.StatusCode.PERMISSION_DENIED,
    Code.NOT_OFFERED: grpc.StatusCode.PERMISSION_DENIED,
    Code.PEER_UNREACHABLE: grpc.StatusCode.UNAVAILABLE,
    Code.PEER_TIMEOUT: grpc.StatusCode.DEADLINE_EXCEEDED,
    Code.PEER_LACKS: grpc.StatusCode.FAILED_PRECONDITION,
    Code.PEER_BUSY: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Code.LINK_ALTERED: grpc.StatusCode.UNAVAILABLE,
    Code.PEER_REFUSED: grpc.StatusCode.FAILED_PRECONDITION,
    Code.PROTOCOL_REMOTE: grpc.StatusCode.INVALID_ARGUMENT,
    Code.DOCUMENT: grpc.StatusCode.INVALID_ARGUMENT,
    Code.BAD_MANIFEST: grpc.StatusCode.INVALID_ARGUMENT,
    Code.BAD_DELIVERY: grpc.StatusCode.INVALID_ARGUMENT,
    Code.BAD_RECEIPT: grpc.StatusCode.INVALID_ARGUMENT,
    Code.BAD_DATA_KEY: grpc.StatusCode.INVALID_ARGUMENT,
    Code.BAD_SIGNATURE: grpc.StatusCode.INVALID_ARGUMENT,
}
_PLAIN = {
    grpc.StatusCode.UNAVAILABLE: PeerUnreachable,
    grpc.StatusCode.UNKNOWN: PeerUnreachable,  # a stream whose connection broke within TLS
    grpc.StatusCode.DEADLINE_EXCEEDED: PeerTimeout,
}

_MOST_CHARACTERS = 1000
_MOMENT_SECONDS = 5.0

_LEFT = "Cancelling all calls"
"""What a server of gRPC that stops says to the calls that go on."""

_TOO_MANY = "Concurrent RPC limit exceeded"
"""What a server of gRPC says that has as many calls as it takes."""

_HANDSHAKE = (
    "the TLS handshake failed: it is another service, or a node that has not paired with this one,"
    " or the clocks differ by more than a day (`emix doctor` checks this one)"
)
_WORDS = {
    "connection refused": "nothing listens there (connection refused)",
    "ssl": _HANDSHAKE,
    "handshak": _HANDSHAKE,
    "socket closed": "the other side closed the connection; check the port",
    "connection reset": "the connection broke (reset)",
    "no route to host": "the network has no route to it (no route to host)",
    "timed out": "no answer (timed out)",
    "timeout": "no answer (timed out)",
    "dns": "the DNS does not know its name",
}

Metadata = tuple[tuple[str, str], ...]


def to_status(error: NodeError, *, is_local: bool) -> tuple[grpc.StatusCode, str, Metadata]:
    """Return status code, message and trailing metadata for an error of ours.

    Remote callers get no details of this machine; see `errors.public_text`.
    """
    metadata = [(CODE_KEY, error.code.value)]
    if isinstance(error, PeerBusy):
        metadata.append((RETRY_KEY, str(int(error.retry_seconds))))
    status = _STATUS.get(error.code, grpc.StatusCode.INTERNAL)
    return status, str(error) if is_local else public_text(error), tuple(metadata)


def to_error(status: grpc.StatusCode, details: str, metadata: dict[str, str]) -> NodeError:
    """Return the error that a status stands for; `NodeError` for one that tells nothing.

    What the other side says is cut, and made safe to show: it may come from anybody.
    """
    details = printable(details[:_MOST_CHARACTERS])
    code = metadata.get(CODE_KEY)
    if code == Code.LINK_ALTERED:  # only our own TLS may report this, never the other side
        return PeerUnreachable(details)
    if code is None:
        if _LEFT in details:
            return PeerLeft("the other side is stopping")
        if _TOO_MANY in details:
            return PeerBusy("the node has too many calls; try again", _MOMENT_SECONDS)
        plain = _PLAIN.get(status, NodeError)
        return plain(_in_our_words(details) or status.name)
    error: NodeError
    if code == Code.PEER_BUSY:
        seconds = metadata.get(RETRY_KEY, "30")
        error = PeerBusy(details, float(seconds) if seconds.isdecimal() else 30.0)
    else:
        error = by_code(code)(details)
    error.is_remote = True
    return error


def _in_our_words(details: str) -> str:
    """Say what gRPC's transport says of a connection as an admin would."""
    found = details.casefold()
    return next((words for part, words in _WORDS.items() if part in found), details)


def error_of(call: Any) -> NodeError:
    """Return the error that a call ended with, which gRPC itself raises as one."""
    return to_error(call.code(), call.details() or "", strings(call.trailing_metadata()))


def strings(metadata: Any) -> dict[str, str]:
    """Return the metadata whose values are text."""
    return {key: value for key, value in metadata or () if isinstance(value, str)}
