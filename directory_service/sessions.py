"""Challenges and sessions that any process of a directory can check, without asking another.

Both are MACs over their content, under keys derived from the directory's key. Only used challenges
are stored: in the database if there may be several processes; otherwise in memory, and then the
challenge key ends with the process.
"""

import base64
import binascii
import hmac
import secrets
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from node.crypto.digests import derive_key, keyed_digest
from node.domain.ids import FacilityId, NodeId
from node.errors import PeerUntrusted

CHALLENGE_SECONDS = 60.0
SESSION_SECONDS = 3600
_MAC_BYTES = 32
_TIME = struct.Struct(">Q")
_CHALLENGE_BYTES = _TIME.size + 16 + _MAC_BYTES
_SESSION_BYTES = 64 + 2 * _TIME.size + _MAC_BYTES


@dataclass(frozen=True, slots=True)
class Session:
    """Who calls; `generation` is that of its node certificate."""

    node: NodeId
    facility: FacilityId
    generation: int
    expires_time: float


Spend = Callable[[bytes, float, float], Awaitable[bool]]
"""Uses up a challenge, which stands until a time, now; False if it was used before."""


class SpentHere:
    """Challenges that were used, where one process alone takes them."""

    def __init__(self) -> None:
        self._spent: dict[bytes, float] = {}  # until when, about in that order

    async def spend(self, challenge: bytes, expires: float, now: float) -> bool:
        """See `Spend`."""
        while self._spent and next(iter(self._spent.values())) < now - CHALLENGE_SECONDS:
            del self._spent[next(iter(self._spent))]
        if challenge in self._spent:
            return False
        self._spent[challenge] = expires
        return True


class Sessions:
    """Makes and checks challenges and sessions."""

    def __init__(self, key: bytes, *, is_alone: bool = False) -> None:
        """Prepare.

        Args:
            key: The directory's key.
            is_alone: Use a challenge key of this process alone: no other process, nor this one
                after a restart, accepts its challenges, since it would not know which were used.
        """
        secret = key + secrets.token_bytes(32) if is_alone else key
        self._challenge_key = derive_key("emix 2026-11 directory challenge v1", secret)
        self._session_key = derive_key("emix 2026-11 directory session v1", key)

    def challenge(self, now: float) -> bytes:
        """Return a new challenge."""
        body = _TIME.pack(int(now)) + secrets.token_bytes(16)
        return body + keyed_digest(self._challenge_key, body)

    def check_challenge(self, challenge: bytes, now: float) -> float:
        """Check a challenge's MAC and return its expiry; `Spend` uses it up.

        Raises:
            PeerUntrusted: it is not ours, or has expired.
        """
        body, mac = challenge[:-_MAC_BYTES], challenge[-_MAC_BYTES:]
        is_ours = hmac.compare_digest(mac, keyed_digest(self._challenge_key, body))
        if len(challenge) != _CHALLENGE_BYTES or not is_ours:
            raise PeerUntrusted("the challenge is not of this directory; ask for a new one")
        expires = _TIME.unpack_from(body)[0] + CHALLENGE_SECONDS
        if now >= expires:
            raise PeerUntrusted("the challenge has expired; ask for a new one")
        return float(expires)

    def open(self, node: NodeId, facility: FacilityId, generation: int, now: float) -> str:
        """Return a new session for a node that has shown itself."""
        numbers = _TIME.pack(generation) + _TIME.pack(int(now) + SESSION_SECONDS)
        body = node.digest + facility.digest + numbers
        return base64.b64encode(body + keyed_digest(self._session_key, body)).decode("ascii")

    def check(self, text: str, now: float) -> Session:
        """Return the session in `text`.

        Raises:
            PeerUntrusted: it is no session of this directory, or has expired.
        """
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            data = b""
        body, mac = data[:-_MAC_BYTES], data[-_MAC_BYTES:]
        is_ours = hmac.compare_digest(mac, keyed_digest(self._session_key, body))
        if len(data) != _SESSION_BYTES or not is_ours:
            raise PeerUntrusted("the session is not of this directory; log in")
        (generation,), (expires,) = _TIME.unpack_from(body, 64), _TIME.unpack_from(body, 72)
        if now >= expires:
            raise PeerUntrusted("the session has expired; log in again")
        return Session(NodeId(body[:32]), FacilityId(body[32:64]), generation, expires)
