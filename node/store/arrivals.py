"""Arriving packages: offers, chunks that are already stored, and the commit of a whole package."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial

import trio

from node.crypto.keys import DataKey
from node.documents.arrivals import Arrival
from node.documents.delivery import Delivery
from node.documents.receipt import Receipt, sign_receipt
from node.documents.signed import Document
from node.domain.connections import Route
from node.domain.ids import FacilityId
from node.domain.manifest import Manifest
from node.domain.packages import Package, PackageState
from node.domain.summary import Summary
from node.domain.transfers import (
    NOTHING_CARRIED,
    Carried,
    Direction,
    State,
    Transfer,
    transfer_facts,
)
from node.domain.verdicts import Checked
from node.errors import (
    BadDelivery,
    BadManifest,
    Conflict,
    NotFound,
    PeerBusy,
    PeerRefused,
    StoreError,
)
from node.sql.database import Db
from node.store import audit_rows, findings, package_rows, transfer_rows
from node.store.context import StoreContext
from node.store.envelopes import Envelope
from node.store.lost import find_lost, is_whole, lost_positions
from node.store.transfer_rows import FINAL, OPEN
from node.store.transfers import TransferStore
from node.store.verification import mark_opened
from node.system import clock

MAX_OPEN_OFFERS = 10_000
MAX_OFFER_BYTES = 16 * 2**20
"""How many offers of one peer are kept while they are not final, and of what size together."""

MAX_ENDED_OFFERS = 20_000
"""Ended offers without a receipt that are remembered per peer, until their deliveries expire."""

MAX_ARRIVING_MANIFESTS = 128 * 2**20
"""How many bytes of manifests are kept for packages that one peer has begun and not completed."""

MAX_REDELIVERIES = 8
"""How often one peer may deliver the same package within 30 days while it is here."""

MAX_RECEIPT_BYTES = 256 * 2**20
"""How many bytes of deliveries with receipts are kept for one peer in 30 days: some 80,000."""

_DAY_SECONDS = 86400
_COUNTED_DAYS = 30
_FULL_SECONDS = 300.0
_CHUNKS_READ = 16


class ArrivalStore:
    """The receiver's side of transfers."""

    def __init__(self, context: StoreContext, transfers: TransferStore) -> None:
        self._context = context
        self._transfers = transfers

    async def keep_offer(
        self,
        delivery: Delivery,
        document: Document,
        sealed_key: bytes,
        *,
        is_held: bool,
        summary: Summary | None = None,
        route: Route | None = None,
    ) -> Transfer:
        """Return the transfer of a delivery that was shown to us, kept if it is new.

        A summary is kept for the person who decides about it, and no longer. The route is kept of a
        new one.

        Durable once this returns; cancelled, it was done whole or not at all.

        Raises:
            BadDelivery: the peer used this transfer id for another delivery before.
            PeerBusy: so many of its offers wait here, or ended here, that no more are kept.
            PeerRefused: it has receipts for this package already, more than anybody needs.
        """

        def work(db: Db) -> Transfer:
            rows = transfer_rows.find(
                db,
                "direction = 'receive' AND peer = ? AND transfer_id = ?",
                (delivery.sender.digest, delivery.transfer_id.value),
            )
            if rows:
                if rows[0].delivery_digest != document.digest():
                    raise BadDelivery("the transfer id was already used for another delivery")
                return rows[0]
            _check_redeliveries(db, delivery)
            _check_offers(db, delivery.sender, len(document.encode()))
            state = State.HELD if is_held else State.CARRYING
            row_id = transfer_rows.add_transfer(
                db, Direction.RECEIVE, delivery, document, sealed_key, state, study_uid=""
            )
            transfer_rows.keep_summary(db, row_id, summary)
            transfer_rows.add_carried(db, row_id, Carried(route=route))
            added = transfer_rows.by_id(db, row_id)
            audit_rows.append(db, "offer.received", {**transfer_facts(added), "state": state})
            return added

        row = await self._context.database.write(work)
        self._transfers.publish(row)
        return row

    async def find_package(self, row: Transfer) -> Package | None:
        """Return the package that a transfer is about, in whatever state it is here."""
        return await self._context.database.read(
            lambda db: package_rows.get_package(db, row.origin, row.package_id)
        )

    async def is_whole(self, row: Transfer, reading: trio.CapacityLimiter | None) -> bool:
        """Return whether a received package is still whole, or was deleted here on purpose.

        After a deletion by this facility the receipt remains valid: it says when the package came.
        After damage the package has to come again.

        Args:
            row: The transfer with the receipt.
            reading: Limits the threads that read and digest every chunk; if None, only sizes are
                checked.
        """
        package = await self.find_package(row)
        if package is None or package.state is not PackageState.CLOSED:
            return True
        found = await trio.to_thread.run_sync(is_whole, self._context, package.id)
        if not found or reading is None:
            return found
        row_id = package.id
        chunks = await self._context.database.read(lambda db: package_rows.get_chunks(db, row_id))
        lost = 0
        for i in range(0, len(chunks), _CHUNKS_READ):  # a thread cannot be stopped in between
            find = partial(find_lost, self._context, chunks[i : i + _CHUNKS_READ], reads_them=True)
            lost += len(await trio.to_thread.run_sync(find, limiter=reading))
        return not lost

    async def begin_arrival(
        self,
        row: Transfer,
        data_key: DataKey,
        manifest: Manifest,
        document: Document,
        arriving_bytes: int,
    ) -> Arrival:
        """Commit the rows that must exist before the first chunk is written: key, manifest, chunks.

        An arrival that was begun before continues with its recorded chunks. So does a complete one
        that has lost chunks since; its transfer stays delivered.

        Args:
            row: The transfer.
            data_key: The package's data key.
            manifest: The manifest in `document`.
            document: The signed manifest; kept for this link and later ones.
            arriving_bytes: Bound on the missing sealed bytes of all packages that the peer began.

        Raises:
            BadManifest: another manifest is kept for this package: equivocation.
            Conflict: the package is being deleted here.
            PeerBusy: the peer has begun so much that it has to complete some of it first.
        """
        context = self._context
        begun: list[tuple[Package, frozenset[int], bool]] = []

        def work(db: Db) -> None:
            now = transfer_rows.by_id(db, row.id)
            if now.receipt is None and now.state.is_final:
                raise Conflict("the transfer was ended meanwhile")
            package = package_rows.get_package(db, row.origin, row.package_id)
            is_new = package is None
            if package is None:
                _check_arrivals(db, row.peer, len(document.body), manifest, arriving_bytes)
                epoch, wrapped = context.wrap(data_key, row.origin)
                package_id = package_rows.add_package(
                    db,
                    package_id=row.package_id,
                    origin=row.origin,
                    study_uid=manifest.study_instance_uid,
                    state=PackageState.ARRIVING,
                    epoch=epoch,
                    wrapped_key=wrapped,
                    received_from=row.peer,
                    needs=manifest.needs,
                )
                package_rows.add_chunks(db, package_id, 0, manifest.chunks, present=False)
                db.execute(
                    "UPDATE packages SET manifest = ?, manifest_digest = ? WHERE id = ?",
                    (document.encode(), document.digest(), package_id),
                )
            elif package.manifest_digest != document.digest():
                facts: dict[str, object] = {
                    "package": str(row.package_id),
                    "origin": str(row.origin),
                    "peer": str(row.peer),
                    "study": manifest.study_instance_uid,
                }
                audit_rows.alarm(db, "alarm.equivocation", facts, about=("origin", "peer"))
            elif package.state is PackageState.DELETING:
                raise Conflict("the package is being deleted here; offer it again later")
            db.execute(
                "UPDATE transfers SET study_uid = ?, plaintext_bytes = ?, state = 'carrying',"
                " reason = '', updated_time = ? WHERE id = ? AND receipt IS NULL",
                (manifest.study_instance_uid, manifest.plaintext_bytes, clock.now(), row.id),
            )
            begun.append((*_begun(db, row), is_new))

        await self._transfers.change(row.id, work)
        return self._arrival(document.digest(), *begun[-1])

    async def arrival(self, row: Transfer, manifest_digest: bytes) -> Arrival:
        """Return an arrival that was begun.

        Raises:
            BadManifest: another manifest is kept for this package: equivocation.
        """
        package, present = await self._context.database.read(lambda db: _begun(db, row))
        return self._arrival(manifest_digest, package, present)

    def _arrival(
        self,
        manifest_digest: bytes,
        package: Package,
        present: frozenset[int],
        is_new: bool = False,
    ) -> Arrival:
        if package.manifest_digest != manifest_digest:
            raise BadManifest("another manifest is kept here for the same package")
        return Arrival(package, self._context.data_key(package), present, is_new)

    async def mark_present(self, arrival: Arrival, positions: Sequence[int]) -> None:
        """Record chunks as durable; their directories have been synced."""
        await self._context.database.write(
            lambda db: _mark_present(db, arrival.package.id, positions)
        )

    async def forget_chunk(self, arrival: Arrival, position: int) -> None:
        """Record a chunk as not there: it was damaged here."""
        await self._context.database.write(
            lambda db: db.execute(
                "UPDATE chunks SET present = 0 WHERE package = ? AND position = ?",
                (arrival.package.id, position),
            )
        )

    async def commit_arrival(
        self,
        row: Transfer,
        manifest: Manifest,
        checked: Checked,
        arrived: Collection[int] = (),
        carried: Carried = NOTHING_CARRIED,
    ) -> Transfer:
        """Commit a whole package whose chunks are all durable, opened and checked.

        The envelope is synced first. Then one transaction makes the package visible and keeps
        the signed receipt and the audit entry. Only after that may the receipt leave.

        Args:
            row: The transfer.
            manifest: What the package has.
            checked: What was found in it.
            arrived: Positions of synced chunks that are not recorded as durable yet.
            carried: What is not recorded yet of what came over the link.

        Raises:
            StoreError: some chunk is not here, or not as it was; that is noted.
            NotFound, Conflict: the package or the transfer were ended meanwhile.
        """
        commit = partial(self._commit_arrival, row, manifest, checked, arrived, carried)
        return await trio.to_thread.run_sync(commit)

    def _commit_arrival(
        self,
        row: Transfer,
        manifest: Manifest,
        checked: Checked,
        arrived: Collection[int],
        carried: Carried,
    ) -> Transfer:
        context = self._context
        package = context.database.read_sync(
            lambda db: package_rows.get_package(db, row.origin, row.package_id)
        )
        if package is None:
            raise NotFound("the arrival was discarded meanwhile")
        if not is_whole(context, package.id, unrecorded=arrived):
            raise StoreError("chunks were damaged or lost here meanwhile; they are carried again")
        if package.state is PackageState.ARRIVING:
            self._put_envelope(row, package, checked)
        forms = checked.index.forms()  # before the transaction, in which nobody else can write
        received_time = clock.now()
        receipt = self._sign_receipt(row, package, manifest, received_time)

        def work(db: Db) -> Transfer:
            now = transfer_rows.by_id(db, row.id)
            _mark_present(db, package.id, arrived)
            transfer_rows.add_carried(db, row.id, carried)
            if now.receipt is not None:
                return now
            if now.state.is_final:
                raise Conflict(f"the transfer is {now.state} already")
            _close_arrived(db, row, manifest, checked, forms)
            _deliver(db, row, manifest, receipt, received_time)
            return transfer_rows.by_id(db, row.id)

        committed = context.database.write_sync(work)
        self._transfers.publish(committed)
        return committed

    def _put_envelope(self, row: Transfer, package: Package, checked: Checked) -> None:
        encoded = self._context.database.read_sync(
            lambda db: package_rows.manifest_document(db, package.id)
        )
        self._context.envelopes.put(
            Envelope(
                package.package_id,
                package.origin,
                package.epoch,
                package.wrapped_key,
                encoded,
                row.delivery,
                findings.encode(checked.doubts),
            )
        )

    def _sign_receipt(
        self, row: Transfer, package: Package, manifest: Manifest, received_time: float
    ) -> Document:
        receipt = Receipt(
            transfer_id=row.transfer_id,
            delivery_digest=row.delivery_digest,
            manifest_digest=package.manifest_digest or b"",
            package_id=row.package_id,
            receiver=self._context.facility,
            instances=len(manifest.instances),
            plaintext_bytes=manifest.plaintext_bytes,
            received_time=received_time,
        )
        return sign_receipt(receipt, self._context.signer)

    async def discard_arrival(self, row: Transfer) -> list[int]:
        """Mark the partial package of a transfer that ended without a receipt; return its rows.

        Nothing is marked while another open transfer is about the same package. Check and mark are
        one transaction: a transfer that begins the package afterwards is asked to come again.

        Durable once this returns; cancelled, it was done whole or not at all.
        """

        def work(db: Db) -> list[int]:
            package = package_rows.get_package(db, row.origin, row.package_id)
            if package is None or package.state is not PackageState.ARRIVING:
                return []
            others = transfer_rows.find(
                db,
                "direction = 'receive' AND origin = ? AND package_id = ? AND id != ?"
                f" AND state NOT IN ({FINAL})",
                (row.origin.digest, row.package_id.digest, row.id),
                limit=1,
            )
            if others:
                return []
            db.execute("UPDATE packages SET state = 'deleting' WHERE id = ?", (package.id,))
            return [package.id]

        return await self._context.database.write(work, in_need=True)


def _mark_present(db: Db, package: int, positions: Collection[int]) -> None:
    db.conn.executemany(
        "UPDATE chunks SET present = 1 WHERE package = ? AND position = ?",
        [(package, position) for position in positions],
    )


def _check_offers(db: Db, peer: FacilityId, size: int) -> None:
    """Check the bounds on what is kept of a peer's offers, in the transaction that keeps one."""
    sql = (
        "SELECT COUNT(*), COALESCE(SUM(LENGTH(delivery)), 0) FROM transfers"
        " WHERE direction = 'receive' AND receipt IS NULL AND peer = ? AND state IN "
    )
    waiting, waiting_bytes = db.execute(f"{sql}({OPEN})", (peer.digest,)).fetchone()
    if waiting >= MAX_OPEN_OFFERS or waiting_bytes + size > MAX_OFFER_BYTES:
        raise PeerBusy("too many open offers of this facility", _FULL_SECONDS)
    if db.execute(f"{sql}({FINAL})", (peer.digest,)).fetchone()[0] >= MAX_ENDED_OFFERS:
        raise PeerBusy("too many offers of this facility ended undelivered", _FULL_SECONDS)
    kept = db.execute(
        "SELECT COALESCE(SUM(bytes), 0) FROM receipt_days WHERE peer = ? AND day > ?",
        (peer.digest, clock.now() // _DAY_SECONDS - _COUNTED_DAYS),
    ).fetchone()[0]
    # What waits may come to a receipt, too: it is counted from the start.
    if kept + waiting_bytes + size > MAX_RECEIPT_BYTES:
        raise PeerBusy("too much was received from this facility in 30 days", _FULL_SECONDS)


def _check_redeliveries(db: Db, delivery: Delivery) -> None:
    """Bound one peer's transfers about one package: those that are open, and receipts for it.

    Receipts count as long as the package is here and whole: it may have to come again.
    """
    name = (delivery.origin.digest, delivery.package_id.digest)
    count = db.execute(
        "SELECT COUNT(*) FROM transfers WHERE origin = ? AND package_id = ? AND peer = ?"
        f" AND direction = 'receive' AND (state IN ({OPEN})"
        "  OR (receipt IS NOT NULL AND received_time > ? AND EXISTS (SELECT 1 FROM packages p"
        "   WHERE p.origin = ? AND p.package_id = ? AND p.state = 'closed' AND NOT EXISTS"
        "   (SELECT 1 FROM chunks c WHERE c.package = p.id AND c.present = 0))))",
        (*name, delivery.sender.digest, clock.now() - _COUNTED_DAYS * _DAY_SECONDS, *name),
    ).fetchone()[0]
    if count >= MAX_REDELIVERIES:
        raise PeerRefused(
            f"this package was delivered or offered here {count} times in {_COUNTED_DAYS} days;"
            " its receipts remain valid"
        )


def _check_arrivals(
    db: Db, peer: FacilityId, size: int, manifest: Manifest, arriving_bytes: int
) -> None:
    """Check the bounds on what a peer has begun, in the transaction that begins one more."""
    where = "p.state = 'arriving' AND p.received_from = ?"
    kept = db.execute(
        f"SELECT COALESCE(SUM(LENGTH(p.manifest)), 0) FROM packages p WHERE {where}",
        (peer.digest,),
    ).fetchone()[0]
    begun = db.execute(
        "SELECT COALESCE(SUM(c.sealed_bytes), 0) FROM packages p"
        f" JOIN chunks c ON c.package = p.id WHERE {where} AND c.present = 0",
        (peer.digest,),
    ).fetchone()[0]
    if kept + size > MAX_ARRIVING_MANIFESTS or begun + manifest.sealed_bytes > arriving_bytes:
        raise PeerBusy("too much data of this facility is in transit already", _FULL_SECONDS)


def _begun(db: Db, row: Transfer) -> tuple[Package, frozenset[int]]:
    """Return the package of an arrival that was begun, and which chunks of it are here."""
    package = package_rows.get_package(db, row.origin, row.package_id)
    if package is None:
        raise NotFound("the arrival was not begun")
    positions = db.execute(
        "SELECT position FROM chunks WHERE package = ? AND present = 1", (package.id,)
    )
    return package, frozenset(r[0] for r in positions)


def _close_arrived(
    db: Db,
    row: Transfer,
    manifest: Manifest,
    checked: Checked,
    forms: Mapping[str, tuple[str, str]],
) -> None:
    """Make a package visible that is whole; one that is closed already stays as it is."""
    package = package_rows.get_package(db, row.origin, row.package_id)
    if package is None or package.state not in (PackageState.ARRIVING, PackageState.CLOSED):
        raise Conflict("the package was deleted here meanwhile")
    if lost_positions(db, package.id):
        raise StoreError("chunks were damaged or lost here meanwhile; they are carried again")
    if package.state is PackageState.CLOSED:
        return
    mark_opened(db, package.id, range(len(manifest.chunks)))
    package_rows.add_instances(db, package.id, 0, manifest.instances, checked.images)
    package_rows.add_attachments(db, package.id, 0, manifest.attachments)
    package_rows.merge_index(db, package.id, checked.index, forms)
    findings.add(db, package.id, checked.doubts)
    encoded = package_rows.manifest_document(db, package.id)
    digest = package.manifest_digest or b""
    package_rows.close_package(db, package.id, PackageState.ARRIVING, encoded, digest)


def _deliver(
    db: Db, row: Transfer, manifest: Manifest, receipt: Document, received_time: float
) -> None:
    db.execute(
        "UPDATE transfers SET state = 'delivered', reason = '', summary = '', receipt = ?,"
        " study_uid = ?,"
        " bytes_done = bytes_total, plaintext_bytes = ?, updated_time = ?, received_time = ?"
        " WHERE id = ?",
        (
            receipt.encode(),
            manifest.study_instance_uid,
            manifest.plaintext_bytes,
            clock.now(),
            received_time,
            row.id,
        ),
    )
    transfer_rows.keep_manifest(db, row)
    now = transfer_rows.by_id(db, row.id)
    db.execute(
        "INSERT INTO receipt_days VALUES (?, ?, ?)"
        " ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes",
        (
            row.peer.digest,
            int(clock.now()) // _DAY_SECONDS,
            len(now.delivery) + len(receipt.encode()),
        ),
    )
    facts = {**transfer_facts(now), "receipt": receipt.digest().hex()}
    audit_rows.append(db, "transfer.received", facts)
