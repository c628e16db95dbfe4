"""Pairing: from an ID, a file or a short string to a pin; and statements renewed later.

A Facility ID has 256 bits. A person who has it from elsewhere can fetch the statements from any
place: comparing the ID proves them. Without an ID, two people compare eight characters. The caller
commits to its nonce before it sees the other's, so neither side can search for a collision. One
attempt a minute, three in all, leave an attacker 3 chances in 2^40.
"""

import base64
import math
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from node.crypto.digests import sha256
from node.documents.identity import Identity
from node.documents.peers import Peer, find_peer, look_alikes
from node.documents.signed import MAX_CLOCK_SKEW_SECONDS
from node.domain.actors import NODE, Actor
from node.domain.events import PinsChanged, Publish
from node.domain.ids import FacilityId, InvitationId, NetworkId
from node.domain.names import alike
from node.errors import BadSignature, Conflict, NotFound, PeerBusy, PeerUntrusted, UsageError
from node.exchange.membership.strangers import Strangers
from node.system import clock

log = structlog.get_logger()
_ATTEMPT_SECONDS = 60.0
_MAX_ATTEMPTS = 3
_PENDING_SECONDS = 600.0
_RENEW_SECONDS = 20.0
_NONCE_BYTES = 32


class Pins(Protocol):
    """What pairing needs of the store."""

    async def all(self) -> list[Peer]:
        """Return all peers, removed ones too."""

    async def get(self, facility: FacilityId) -> Peer | None:
        """Return one peer, removed or not."""

    async def pin(
        self,
        identity: Identity,
        *,
        endpoint: str,
        how: str,
        actor: Actor,
        restore_removed: bool = False,
        name: str = "",
        member: tuple[NetworkId, InvitationId] | None = None,
    ) -> Peer:
        """Pin a facility; a member is trusted as long as it is one."""

    async def renew(self, identity: Identity) -> bool:
        """Keep newer statements of a pinned facility; False if there are newer ones."""

    async def remove(self, facility: FacilityId, actor: Actor) -> Peer:
        """Remove a peer for good."""

    async def alarm(self, facility: FacilityId, problem: str) -> None:
        """Record that a pinned facility presented something invalid."""

    async def note_seen(self, facility: FacilityId, when: float) -> None:
        """Keep when a peer was last heard of."""


class Introductions(Protocol):
    """Calls introduction services; `federation.connections.introduction_client` implements it."""

    async def fetch_statements(self, address: str) -> Identity:
        """Return the verified statements of whoever answers there."""

    async def begin_string(self, address: str, commitment: bytes) -> tuple[bytes, bytes, Identity]:
        """Commit to our nonce; return attempt, the other's nonce and statements."""

    async def open_string(
        self, address: str, attempt: bytes, nonce: bytes, statements: bytes
    ) -> None:
        """Open our commitment."""


@dataclass(frozen=True)
class HowToPair:
    """The options that a person gives when pairing.

    Attributes:
        endpoint: The address of its peer service; empty for the address in its statements.
        restores: Restore a facility that was removed.
        refuses_alike: Do not pin a facility whose name looks like another's.
    """

    endpoint: str = ""
    restores: bool = False
    refuses_alike: bool = False


@dataclass(frozen=True)
class StringPairing:
    """A pairing by short string that waits for a person here."""

    attempt: str
    short_string: str
    identity: Identity
    began: float


@dataclass(frozen=True)
class _Committed:
    commitment: bytes
    nonce: bytes
    began: float


class Pairing:
    """Changes pins, and publishes each change.

    Attributes:
        strangers: Facilities that have paired with this one and are not paired here.
    """

    def __init__(
        self,
        pins: Pins,
        introductions: Introductions,
        me: FacilityId,
        statements: Callable[[], bytes],
        publish: Publish,
    ) -> None:
        self._publish = publish
        self._pins = pins
        self._introductions = introductions
        self._me = me
        self._statements = statements
        self._committed: dict[bytes, _Committed] = {}
        self._pending: dict[str, StringPairing] = {}
        self._last_attempt = -_ATTEMPT_SECONDS
        self._attempts = 0
        self._renewed: dict[FacilityId, float] = {}
        self.strangers = Strangers()

    # -- by ID or file --------------------------------------------------------------------

    async def pair_by_id(
        self, facility: FacilityId, at: str, *, actor: Actor, how: "HowToPair"
    ) -> Peer:
        """Fetch a facility's statements from an address, compare the Facility ID, and pin.

        Raises:
            PeerUnreachable: no node answers there.
            PeerUntrusted: the node there is of another facility.
        """
        identity = await self._introductions.fetch_statements(at)
        if identity.facility_id != facility:
            raise PeerUntrusted(
                f"the node at {at} belongs to facility {identity.facility_id}, not to the one"
                " that you named; nothing was pinned"
            )
        return await self._pin(identity, "id", actor, how)

    async def pair_by_identity(
        self, identity: Identity, name: str, *, actor: Actor, how: "HowToPair"
    ) -> Peer:
        """Pin the facility that a person named by its full ID, with statements from others.

        A member gets the name in its network's invitation: it could call itself by another's name.
        """
        return await self._pin(identity, "id", actor, how, name=name)

    async def pair_by_statements(self, encoded: bytes, *, actor: Actor, how: "HowToPair") -> Peer:
        """Pin the facility that exported these statements."""
        identity = Identity.decode(encoded)
        return await self._pin(identity, "file", actor, how)

    async def pin_member(
        self, identity: Identity, name: str, member: tuple[NetworkId, InvitationId]
    ) -> Peer:
        """Pin a member of a network for as long as it is one, by the name that the network gave it.

        Durable, and in force, once this returns; cancelled in between, it is in force with the next
        change of pins.

        Raises:
            Conflict: a person removed it here; that holds.
            UsageError: it is this facility itself, or its clock is far ahead.
            BadSignature: its node key is of a time that is to come.
        """
        if identity.facility_id == self._me:
            raise UsageError("the facility named is this one")
        _check_not_to_come(identity)
        peer = await self._pins.pin(
            identity, endpoint="", how="network", actor=NODE, name=name, member=member
        )
        await self._publish(PinsChanged())
        return peer

    async def _pin(
        self, identity: Identity, means: str, actor: Actor, how: "HowToPair", name: str = ""
    ) -> Peer:
        if identity.facility_id == self._me:
            raise UsageError("the facility named is this one")
        _check_not_to_come(identity)
        if how.refuses_alike:
            for warning in await self.warnings(
                identity.facility_id, name or identity.profile.display_name
            ):
                raise Conflict(f"{warning}; nothing was pinned")
        peer = await self._pins.pin(
            identity,
            endpoint=how.endpoint,
            how=means,
            actor=actor,
            restore_removed=how.restores,
            name=name,
        )
        self.strangers.forget(peer.facility_id)
        await self._publish(PinsChanged())
        return peer

    async def warnings(self, facility: FacilityId, name: str) -> list[str]:
        """Return the names that look like this one, as warnings before a facility is pinned."""
        peers = [p for p in await self._pins.all() if not p.is_removed]
        found = [
            f"the name {name!r} of {facility} looks like that of {other.name!r}, Facility ID"
            f" {other.facility_id}, which is paired: compare the IDs, and send by ID"
            for other in look_alikes(peers, facility, name)
        ]
        own = Identity.decode(self._statements()).profile.display_name
        if alike(own, name):
            found.append(f"the name {name!r} looks like this facility's own, {own!r}")
        return found

    async def remove(self, text: str, actor: Actor) -> Peer:
        """Remove a peer for good; its running calls end before this returns.

        Durable, and in force, once this returns; cancelled in between, it is in force with the next
        change of pins.
        """
        peer = find_peer([p for p in await self._pins.all() if not p.is_removed], text)
        removed = await self._pins.remove(peer.facility_id, actor)
        await self._publish(PinsChanged())
        return removed

    # -- what peers state anew ------------------------------------------------------------

    async def accept_statements(self, identity: Identity) -> None:
        """Keep a pinned facility's statements if they are newer than the pin's."""
        await self.presented(identity)

    async def presented(self, identity: Identity) -> bool:
        """Do as `accept_statements`; return False if the statements are refused.

        They are refused if the facility is not pinned, if its node was replaced or is certified for
        a future time, or if its node key or certificate is another peer's.

        What is kept is durable and in force once this returns; if cancelled after it is durable, it
        is in force with the next change of pins.
        """
        peer = await self._pins.get(identity.facility_id)
        if peer is None or peer.is_removed:
            return False
        if identity.cert.generation < peer.identity.cert.generation:
            problem = "its old node key is in use: a node that it has replaced presented statements"
            await self._alarm(peer.facility_id, problem)
            return False
        try:
            identity.cert.check_taken(clock.now())
        except BadSignature as exc:
            log.warning("statements refused", facility=peer.facility_id.short(), reason=str(exc))
            return False
        if identity.profile.issued_seconds > clock.now() + MAX_CLOCK_SKEW_SECONDS:
            return True  # from the future: kept, it would shut out all that follow
        if not self._is_newer(identity, peer.identity):
            return True
        self._renewed[identity.facility_id] = time.monotonic()
        try:
            is_kept = await self._pins.renew(identity)
        except PeerUntrusted as exc:
            log.warning(
                "statements refused", facility=identity.facility_id.short(), reason=str(exc)
            )
            return False
        if not is_kept:  # others came meanwhile, or a person removed it: judged by those
            return await self.presented(identity)
        log.info("peer renewed", facility=identity.facility_id.short())
        await self._publish(PinsChanged())
        return True

    def _is_newer(self, identity: Identity, known: Identity) -> bool:
        if identity.cert.generation > known.cert.generation:
            return True  # a stolen key's successor waits for nothing
        last = self._renewed.get(identity.facility_id, -math.inf)
        # A peer must not fill the audit log.
        return identity.order > known.order and time.monotonic() - last >= _RENEW_SECONDS

    async def report_forged(self, facility: FacilityId, problem: str) -> None:
        """Report an invalid document signed by a facility; raise an alarm if it is pinned here.

        Durable once this returns; cancelled, it was done whole or not at all.
        """
        peer = await self._pins.get(facility)
        if peer is None or peer.is_removed:  # anybody can make a key up, and fill the log
            log.warning("statements refused", facility=facility.short(), reason=problem)
            return
        await self._alarm(facility, problem)

    async def _alarm(self, facility: FacilityId, problem: str) -> None:
        log.error("peer alarm", facility=facility.short(), problem=problem)
        await self._pins.alarm(facility, problem)

    async def pin_of(self, facility: FacilityId) -> Peer | None:
        """Return a facility's pin, removed or not."""
        return await self._pins.get(facility)

    async def note_seen(self, facility: FacilityId) -> None:
        """Keep that a peer was heard of just now.

        Durable once this returns; cancelled, it was done whole or not at all.
        """
        await self._pins.note_seen(facility, clock.now())

    # -- by short string ------------------------------------------------------------------

    async def begin(self, at: str) -> StringPairing:
        """Begin with the node at an address; both sides then show the same string."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        mine = self._statements()
        attempt, theirs, identity = await self._introductions.begin_string(
            at, _commitment(nonce, mine)
        )
        await self._introductions.open_string(at, attempt, nonce, mine)
        me = Identity.decode(mine)
        return self._add(attempt, _short_string(nonce, theirs, me, identity), identity)

    def begin_string(self, commitment: bytes) -> tuple[bytes, bytes]:
        """Answer a stranger's commitment.

        Raises:
            PeerBusy: there was an attempt within the last minute, or there were three that no
                person confirmed, and no ten minutes without one since.
        """
        now = time.monotonic()
        self._forget_old(now)
        if now - self._last_attempt < _ATTEMPT_SECONDS or self._attempts >= _MAX_ATTEMPTS:
            raise PeerBusy(
                "too many attempts to pair by string are under way here now. Pair by ID instead"
                " (emix peers pair FACILITY-ID --at HOST:PORT), or try again in up to ten minutes",
                _ATTEMPT_SECONDS,
            )
        self._last_attempt, self._attempts = now, self._attempts + 1
        attempt, nonce = secrets.token_bytes(8), secrets.token_bytes(_NONCE_BYTES)
        self._committed[attempt] = _Committed(commitment, nonce, now)
        return attempt, nonce

    async def open_string(self, attempt: bytes, nonce: bytes, identity: Identity) -> None:
        """Accept a stranger's opened commitment; the pairing then waits for a person here."""
        committed = self._committed.pop(attempt, None)
        if committed is None:
            raise NotFound("there is no such pairing attempt, or it has expired")
        if committed.commitment != _commitment(nonce, identity.encoded):
            raise PeerUntrusted("the commitment does not open")
        me = Identity.decode(self._statements())
        self._add(attempt, _short_string(nonce, committed.nonce, identity, me), identity)

    def pending(self) -> list[StringPairing]:
        """Return the pairings that wait for a person here."""
        self._forget_old(time.monotonic())
        return list(self._pending.values())

    async def confirm(self, short_string: str, actor: Actor) -> Peer:
        """Pin the facility whose string a person has compared.

        Raises:
            NotFound: no pairing waits with that string.
        """
        wanted = short_string.upper().replace("-", "").replace(" ", "")
        for pairing in self.pending():
            if secrets.compare_digest(pairing.short_string.replace("-", ""), wanted):
                del self._pending[pairing.attempt]
                self._attempts = 0
                return await self._pin(pairing.identity, "string", actor, HowToPair())
        raise NotFound("no pairing waits with that string; if you read it correctly, do not pair")

    def _add(self, attempt: bytes, short_string: str, identity: Identity) -> StringPairing:
        if len(self._pending) >= _MAX_ATTEMPTS:
            raise Conflict("too many pairings wait here; confirm them, or wait ten minutes")
        pairing = StringPairing(attempt.hex(), short_string, identity, time.monotonic())
        self._pending[pairing.attempt] = pairing
        return pairing

    def _forget_old(self, now: float) -> None:
        self._committed = {
            k: v for k, v in self._committed.items() if now - v.began < _ATTEMPT_SECONDS
        }
        self._pending = {k: v for k, v in self._pending.items() if now - v.began < _PENDING_SECONDS}
        if not self._pending and now - self._last_attempt > _PENDING_SECONDS:
            self._attempts = 0


def _commitment(nonce: bytes, statements: bytes) -> bytes:
    return sha256(b"emix/string-commitment/v1\0", nonce, statements)


def _short_string(
    caller_nonce: bytes, answer_nonce: bytes, caller: Identity, answerer: Identity
) -> str:
    """Return eight characters, 40 bits, that both sides compute alike."""
    digest = sha256(
        b"emix/short-string/v1\0",
        caller_nonce,
        answer_nonce,
        sha256(caller.encoded),
        sha256(answerer.encoded),
    )
    text = base64.b32encode(digest[:5]).decode()
    return f"{text[:4]}-{text[4:]}"


def _check_not_to_come(identity: Identity) -> None:
    """Check that a new pin would not shut out all that its facility states after it."""
    now = clock.now()
    identity.cert.check_taken(now)
    if identity.profile.issued_seconds > now + MAX_CLOCK_SKEW_SECONDS:
        ahead = clock.shown_seconds(identity.profile.issued_seconds - now)
        raise UsageError(
            f"its statements are dated {ahead} ahead of this node's clock: one of the two clocks is"
            " wrong; correct it (NTP) and pair again"
        )
