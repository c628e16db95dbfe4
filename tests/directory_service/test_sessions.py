"""Challenges and sessions: only ours, only in their time, not one bit other."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from directory_service.sessions import (
    CHALLENGE_SECONDS,
    SESSION_SECONDS,
    Session,
    Sessions,
    SpentHere,
)
from node.domain.ids import FacilityId, NodeId
from node.errors import PeerUntrusted

NOW = 1_800_000_000.0
OURS, OTHERS = Sessions(bytes(32)), Sessions(b"x" * 32)
NODE, FACILITY = NodeId(b"n" * 32), FacilityId(b"f" * 32)


def test_any_process_with_the_key_takes_what_another_gave() -> None:
    again = Sessions(bytes(32))
    assert again.check_challenge(OURS.challenge(NOW), NOW + 59) == NOW + CHALLENGE_SECONDS
    found = again.check(OURS.open(NODE, FACILITY, 1, NOW), NOW + 3599)
    assert found == Session(NODE, FACILITY, 1, NOW + SESSION_SECONDS)


def test_late_and_foreign_ones_are_refused() -> None:
    for challenge, now in [(OURS.challenge(NOW), NOW + 60), (OTHERS.challenge(NOW), NOW)]:
        with pytest.raises(PeerUntrusted):
            OURS.check_challenge(challenge, now)
    for session, now in [
        (OURS.open(NODE, FACILITY, 1, NOW), NOW + SESSION_SECONDS),
        (OTHERS.open(NODE, FACILITY, 1, NOW), NOW),
    ]:
        with pytest.raises(PeerUntrusted):
            OURS.check(session, now)


@given(st.integers(0, 10**9), st.integers(1, 255))
def test_one_changed_byte_is_refused(at: int, other: int) -> None:
    challenge = bytearray(OURS.challenge(NOW))
    challenge[at % len(challenge)] ^= other
    with pytest.raises(PeerUntrusted):
        OURS.check_challenge(bytes(challenge), NOW)
    session = bytearray(base64.b64decode(OURS.open(NODE, FACILITY, 1, NOW)))
    session[at % len(session)] ^= other
    with pytest.raises(PeerUntrusted):
        OURS.check(base64.b64encode(session).decode(), NOW)


@given(st.binary(max_size=200), st.text(max_size=200))
def test_noise_is_refused(challenge: bytes, session: str) -> None:
    with pytest.raises(PeerUntrusted):
        OURS.check_challenge(challenge, NOW)
    with pytest.raises(PeerUntrusted):
        OURS.check(session, NOW)


async def test_challenge_is_used_once_here_and_ends_with_the_process() -> None:
    spent, sessions = SpentHere(), Sessions(bytes(32), is_alone=True)
    challenges = [sessions.challenge(NOW + n) for n in range(100)]
    for n, challenge in enumerate(challenges):
        expires = sessions.check_challenge(challenge, NOW + n)
        assert await spent.spend(challenge, expires, NOW + n)
        assert not await spent.spend(challenge, expires, NOW + n)
    for n in range(41, 100):  # those that could be shown still
        expires = sessions.check_challenge(challenges[n], NOW + 100)
        assert not await spent.spend(challenges[n], expires, NOW + 100)
    await spent.spend(sessions.challenge(NOW + 1000), NOW + 1060, NOW + 1000)
    assert len(spent._spent) == 1
    with pytest.raises(PeerUntrusted, match="not of this directory"):
        Sessions(bytes(32), is_alone=True).check_challenge(challenges[-1], NOW + 100)
    session = sessions.open(NODE, FACILITY, 1, NOW)
    assert Sessions(bytes(32), is_alone=True).check(session, NOW).node == NODE  # these go on
