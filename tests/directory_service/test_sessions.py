"""Challenges and sessions: only ours, only in their time, not one bit other."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from directory_service.sessions import CHALLENGE_SECONDS, SESSION_SECONDS, Session, Sessions
from node.domain.ids import FacilityId, NodeId
from node.errors import PeerUntrusted

NOW = 1_800_000_000.0
OURS, OTHERS = Sessions(bytes(32)), Sessions(b"x" * 32)
NODE, FACILITY = NodeId(b"n" * 32), FacilityId(b"f" * 32)


def test_any_process_with_the_key_takes_what_another_gave() -> None:
    again = Sessions(bytes(32))
    assert again.check_challenge(OURS.challenge(NOW), NOW + 59) == NOW + CHALLENGE_SECONDS
    found = again.check(OURS.open(NODE, FACILITY, NOW), NOW + 3599)
    assert found == Session(NODE, FACILITY, NOW + SESSION_SECONDS)


def test_late_and_foreign_ones_are_refused() -> None:
    for challenge, now in [(OURS.challenge(NOW), NOW + 60), (OTHERS.challenge(NOW), NOW)]:
        with pytest.raises(PeerUntrusted):
            OURS.check_challenge(challenge, now)
    for session, now in [
        (OURS.open(NODE, FACILITY, NOW), NOW + SESSION_SECONDS),
        (OTHERS.open(NODE, FACILITY, NOW), NOW),
    ]:
        with pytest.raises(PeerUntrusted):
            OURS.check(session, now)


@given(st.integers(0, 10**9), st.integers(1, 255))
def test_one_changed_byte_is_refused(at: int, other: int) -> None:
    challenge = bytearray(OURS.challenge(NOW))
    challenge[at % len(challenge)] ^= other
    with pytest.raises(PeerUntrusted):
        OURS.check_challenge(bytes(challenge), NOW)
    session = bytearray(base64.b64decode(OURS.open(NODE, FACILITY, NOW)))
    session[at % len(session)] ^= other
    with pytest.raises(PeerUntrusted):
        OURS.check(base64.b64encode(session).decode(), NOW)


@given(st.binary(max_size=200), st.text(max_size=200))
def test_noise_is_refused(challenge: bytes, session: str) -> None:
    with pytest.raises(PeerUntrusted):
        OURS.check_challenge(challenge, NOW)
    with pytest.raises(PeerUntrusted):
        OURS.check(session, NOW)
