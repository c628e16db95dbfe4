"""Periodic tasks of the running node: trust, clock, store."""

import math

import structlog
import trio

from node.app.current import Current
from node.domain.events import Event
from node.errors import StoreError
from node.exchange.membership.memberships import Memberships
from node.exchange.transfer.transfers import Transfers
from node.federation.connections.supervisor import Federation
from node.federation.connections.trust import Pinned, Trust
from node.federation.directory.directories import Directories
from node.store.ballast import Ballast
from node.store.clock_notes import ClockNotes
from node.store.maintenance import Maintenance
from node.store.peers import PeerStore
from node.store.retention import RetentionStore
from node.store.transfers import TransferStore
from node.store.verification import Verification
from node.system import clock

log = structlog.get_logger()
_HOUR_SECONDS, _AGAIN_SECONDS = 3600.0, 600.0
_TRUST_SECONDS = 30.0
_VERIFY_SECONDS, _LEAST_PAUSE = 60.0, 0.5
_CLOCK_SECONDS = 5.0
_NOTE_SECONDS = 600.0


class TrustKeeper:
    """Updates trust and connections when pins or networks change."""

    def __init__(
        self,
        pinned: Pinned,
        trust: Trust,
        peers: PeerStore,
        federation: Federation,
        memberships: Memberships,
        directories: Directories,
    ) -> None:
        self._pinned = pinned
        self._trust = trust
        self._peers = peers
        self._federation = federation
        self._memberships = memberships
        self._directories = directories

    async def pins_changed(self, _: Event) -> None:
        """Update trust and connections from the stored pins."""
        for peer in await self._pinned.refresh():
            await self._peers.alarm(peer.facility_id, self._trust.why_not(peer))
        self._federation.refresh()

    async def networks_changed(self, event: Event) -> None:
        """Update directories, trust and connections from the networks in memory."""
        self._directories.refresh(self._memberships.all())
        await self.pins_changed(event)

    async def run(self) -> None:
        """Look again and again, for ever: a membership expires without a pin changing."""
        while True:
            await trio.sleep(_TRUST_SECONDS)
            await self.pins_changed(Event())


class ClockWatch:
    """Raises an alarm when the clock becomes suspect, and records the trusted time."""

    def __init__(self, notes: ClockNotes) -> None:
        self._notes = notes

    async def run(self) -> None:
        """Watch the clock, for ever."""
        was_suspect, noted = False, -math.inf
        while True:
            doubt, now = clock.CLOCK.doubt, trio.current_time()
            try:
                if doubt and not was_suspect:
                    log.warning("the clock is suspect", why=doubt)
                    await self._notes.alarm(doubt)
                elif was_suspect and not doubt:
                    log.info("the clock is trusted again")
                    await self._notes.confirmed("itself, or another facility's")
                    noted = now
                elif now - noted >= _NOTE_SECONDS:
                    await self._notes.note()
                    noted = now
                was_suspect = bool(doubt)
            except StoreError as exc:  # a full disk: tried again
                log.warning("the time could not be noted", code=exc.code.value)
            await trio.sleep(_CLOCK_SECONDS)


class ChunkVerifier:
    """Opens what was sealed and never opened, little by little."""

    def __init__(self, verification: Verification) -> None:
        self._verification = verification

    async def run(self) -> None:
        """Open it, for ever; it takes a fifth of the time at most."""
        while True:
            pause, begun = _VERIFY_SECONDS, trio.current_time()
            try:
                opened = await self._verification.open_next()
                if opened.damaged:
                    log.error("chunks do not open", chunks=opened.damaged)
                if opened.chunks > opened.damaged:
                    pause = max(_LEAST_PAUSE, 4 * (trio.current_time() - begun))
            except StoreError as exc:  # an object store that is away
                log.warning("chunks could not be opened", code=exc.code.value)
            await trio.sleep(pause)


class Housekeeper:
    """Ends what has expired, forgets old transfers, and applies retention."""

    def __init__(
        self,
        current: Current,
        ballast: Ballast,
        transfers: Transfers,
        book: TransferStore,
        retention: RetentionStore,
        maintenance: Maintenance,
    ) -> None:
        self._maintenance = maintenance
        self._current = current
        self._ballast = ballast
        self._transfers = transfers
        self._book = book
        self._retention = retention

    async def run(self) -> None:
        """Look every hour, for ever. A full disk ends nothing here."""
        while True:
            pause = _HOUR_SECONDS
            try:
                await self._look()
            except StoreError as exc:  # a failed sync ends the node by itself
                log.warning("housekeeping failed; will retry", code=exc.code.value)
                pause = _AGAIN_SECONDS
            await trio.sleep(pause)

    async def _look(self) -> None:
        await trio.to_thread.run_sync(self._ballast.fill)
        if clock.CLOCK.doubt:
            return  # the alarm says so, and nothing ends by such a clock
        expired = await self._transfers.expire()
        if expired:
            log.info("transfers expired", transfers=expired)
        if await trio.to_thread.run_sync(self._maintenance.forget_earlier_database):
            log.info("the copy of the database from before the upgrade was deleted")
        if self._current.config.transfers_days:
            forgotten = await self._book.forget_old(self._current.config.transfers_days)
            if forgotten:
                log.info("old transfers forgotten", transfers=forgotten)
        step = await self._retention.step()
        if step.announced or step.deleted:
            log.info("retention", announced=step.announced, deleted=step.deleted)
