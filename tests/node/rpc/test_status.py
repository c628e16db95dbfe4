"""Every error of ours crosses gRPC and comes out as itself."""

import grpc
import pytest

from node.errors import (
    Code,
    NodeError,
    PeerBusy,
    PeerTimeout,
    PeerUnreachable,
    StoreAway,
    _tree,
    by_code,
)
from node.rpc.status import to_error, to_status


@pytest.mark.parametrize("code", list(Code))
def test_error_comes_out_as_itself(code: Code) -> None:
    error = by_code(code.value)("what happened")
    status, details, metadata = to_status(error, is_local=True)
    assert status is not grpc.StatusCode.OK
    again = to_error(status, details, dict(metadata))
    if code is Code.LINK_ALTERED:  # nobody else's word on that counts
        error = PeerUnreachable("what happened")
    assert (type(again), str(again), again.code) == (type(error), "what happened", error.code)


def test_busy_peer_says_when_to_come_again() -> None:
    again = to_error(*_crossed(PeerBusy("full", 45)))
    assert isinstance(again, PeerBusy)
    assert again.retry_seconds == 45


@pytest.mark.parametrize("seconds", ["-1", "1e9", "soon", ""])
def test_nonsense_for_a_time_is_a_plain_half_minute(seconds: str) -> None:
    metadata = {"emix-error-code": "peer-busy", "emix-retry-seconds": seconds}
    again = to_error(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", metadata)
    assert isinstance(again, PeerBusy)
    assert again.retry_seconds == 30


@pytest.mark.parametrize(("seconds", "waits"), [("0", 1), ("7200", 3600), ("9" * 400, 3600)])
def test_time_to_come_again_is_neither_none_nor_endless(seconds: str, waits: float) -> None:
    metadata = {"emix-error-code": "peer-busy", "emix-retry-seconds": seconds}
    again = to_error(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", metadata)
    assert isinstance(again, PeerBusy)
    assert again.retry_seconds == waits


def test_status_without_our_code_is_told_by_grpcs() -> None:
    assert isinstance(to_error(grpc.StatusCode.UNAVAILABLE, "", {}), PeerUnreachable)
    assert isinstance(to_error(grpc.StatusCode.DEADLINE_EXCEEDED, "", {}), PeerTimeout)
    assert type(to_error(grpc.StatusCode.INTERNAL, "", {})) is NodeError


def test_server_with_too_many_calls_says_so_in_our_words() -> None:
    said = "Concurrent RPC limit exceeded!"  # by gRPC, which knows none of our codes
    again = to_error(grpc.StatusCode.RESOURCE_EXHAUSTED, said, {})
    assert isinstance(again, PeerBusy)
    assert str(again) == "the node has too many calls; try again"


def test_connection_that_breaks_is_one_whatever_words_grpc_has_for_it() -> None:
    """No server of ours ends a call so: gRPC does, and what is carried goes on elsewhere."""
    for details in ("Stream removed (Unwrap failed (TSI_DATA_CORRUPTED))", "", "in other words"):
        for status in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE):
            assert type(to_error(status, details, {})) is PeerUnreachable


def test_unknown_code_is_an_error_all_the_same() -> None:
    again = to_error(grpc.StatusCode.INTERNAL, "x", {"emix-error-code": "of-a-later-version"})
    assert isinstance(again, NodeError)


def _crossed(error: NodeError) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    status, details, metadata = to_status(error, is_local=True)
    return status, details, dict(metadata)


@pytest.mark.parametrize(
    ("details", "words"),
    [
        ("failed to connect to all addresses; last error: Connection refused (111)", "listens"),
        ("UNAVAILABLE: ipv4:127.0.0.1:1: Ssl handshake failed", "has not paired"),
        ("ipv4:127.0.0.1:17420: Socket closed", "check the port"),
        ("Cancelling all calls", "stopping"),
        ("something of a later gRPC", "something of a later gRPC"),
    ],
)
def test_what_the_transport_says_is_told_as_an_admin_would(details: str, words: str) -> None:
    error = to_error(grpc.StatusCode.UNAVAILABLE, details, {})
    assert words in str(error)


LOCAL = "/var/lib/emix/metadata.db belongs to root (uid 0) with mode 0644; 10.1.2.3:7411 is silent"
ABOUT_THE_CALLER = {
    Code.USAGE,
    Code.NOT_FOUND,
    Code.CONFLICT,
    Code.SEVERAL_ORIGINS,
    Code.SEVERAL_PATIENTS,
    Code.PROTOCOL_REMOTE,
    Code.PEER_LACKS,
    Code.DENIED,
    Code.DOCUMENT,
    Code.BAD_MANIFEST,
    Code.BAD_DELIVERY,
    Code.BAD_RECEIPT,
    Code.BAD_DATA_KEY,
    Code.BAD_SIGNATURE,
    Code.NOT_OFFERED,
    Code.PEER_TIMEOUT,
    Code.PEER_REFUSED,
    Code.PEER_BUSY,
    Code.PEER_UNTRUSTED,
}


@pytest.mark.parametrize("kind", _tree(NodeError), ids=lambda kind: kind.__name__)
def test_others_are_told_nothing_of_this_machine(kind: type[NodeError]) -> None:
    error = kind(LOCAL)
    _, details, metadata = to_status(error, is_local=False)
    assert (LOCAL in details) == (error.code in ABOUT_THE_CALLER or kind is StoreAway)
    assert dict(metadata)["emix-error-code"] == error.code.value
    assert to_status(error, is_local=True)[1] == LOCAL
