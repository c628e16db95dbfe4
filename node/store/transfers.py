"""Transfers as rows: offers given and got, their documents, how far they are, receipts.

Rows are never removed before their delivery has expired: a replayed delivery or receipt must
meet the one that was kept.
"""

import time
from collections.abc import Callable, Sequence

import trio

from node.crypto.keys import DataKey
from node.documents.arrivals import Arrival
from node.documents.delivery import Delivery
from node.documents.receipt import Receipt, sign_receipt
from node.documents.signed import Document
from node.domain.ids import FacilityId, PackageId, TransferId
from node.domain.manifest import Manifest
from node.domain.packages import Package
from node.domain.transfers import Direction, Priority, State, Transfer, can_follow
from node.errors import BadDelivery, BadManifest, Conflict, NotFound, PeerBusy
from node.sql.database import Db
from node.store import audit_rows, package_rows
from node.store.context import StoreContext, marks
from node.store.envelopes import Envelope


def _row(row: dict[str, object]) -> Transfer:
    values = dict(row)
    values["transfer_id"] = TransferId(row["transfer_id"])  # type: ignore[arg-type]
    values["direction"] = Direction(str(row["direction"]))
    values["peer"] = FacilityId(row["peer"])  # type: ignore[arg-type]
    values["origin"] = FacilityId(row["origin"])  # type: ignore[arg-type]
    values["package_id"] = PackageId(row["package_id"])  # type: ignore[arg-type]
    values["priority"] = Priority(row["priority"])  # type: ignore[arg-type]
    values["state"] = State(str(row["state"]))
    values["accepted"] = bool(row["accepted"])
    values["untold"] = bool(row["untold"])
    return Transfer(**values)  # type: ignore[arg-type]


class TransferStore:
    """All transfers of this node.

    `on_change` is called on a worker thread after every commit that changed a transfer.
    """

    def __init__(self, context: StoreContext) -> None:
        self._context = context
        self.on_change: Callable[[Transfer], None] = lambda _: None

    async def _change(self, row_id: int, work: Callable[[Db], None]) -> Transfer:
        def run(db: Db) -> Transfer:
            work(db)
            return _by_id(db, row_id)

        row = await self._context.database.write(run)
        self.on_change(row)
        return row

    # -- reading --------------------------------------------------------------------------

    async def find(self, where: str = "1", args: Sequence[object] = ()) -> list[Transfer]:
        """Return transfers that match an SQL condition written by us, newest first."""
        return await self._context.database.read(lambda db: _find(db, where, args))

    async def open_ones(self) -> list[Transfer]:
        """Return transfers that are not final, oldest first."""
        return (await self.find(f"state NOT IN ({_FINAL})"))[::-1]

    async def waiting_for(self, peer: FacilityId) -> list[Transfer]:
        """Return what this node still has to send, or to take back, most urgent first."""
        rows = await self.find(
            f"direction = 'send' AND peer = ? AND (state NOT IN ({_FINAL}) OR untold = 1)",
            (peer.digest,),
        )
        return sorted(rows, key=lambda row: (row.priority, row.id))

    async def sends_of(
        self, peer: FacilityId, origin: FacilityId, package_id: PackageId
    ) -> list[Transfer]:
        """Return all transfers of a package to a peer, newest first."""
        where = "direction = 'send' AND peer = ? AND origin = ? AND package_id = ?"
        return await self.find(where, (peer.digest, origin.digest, package_id.digest))

    async def sendable(self, study: str) -> list[tuple[Package, DataKey, Document, int]]:
        """Return a study's closed packages with key, manifest and plaintext bytes.

        Raises:
            NotFound, Conflict: see `package_rows.expand_study`.
        """

        def work(db: Db) -> list[tuple[Package, DataKey, Document, int]]:
            uid = package_rows.expand_study(db, study)
            found = package_rows.find_packages(db, "state = 'closed' AND study_uid = ?", (uid,))
            return [
                (
                    package,
                    self._context.data_key(package),
                    Document.decode(package_rows.manifest_document(db, package.id)),
                    sum(i.size_bytes for i in package_rows.get_instances(db, package.id)),
                )
                for package in found
            ]

        return await self._context.database.read(work)

    async def get(self, prefix: str) -> Transfer:
        """Return the transfer whose id begins so; `NotFound` or `Conflict` otherwise."""
        wanted = prefix.strip().lower()
        if not wanted or wanted.strip("0123456789abcdef"):
            raise NotFound("a transfer id has only 0-9 and a-f; see `emix transfers`")
        rows = await self.find("hex(transfer_id) LIKE ?", (wanted.upper() + "%",))
        if not rows:
            raise NotFound(f"no transfer begins with {wanted}; `emix transfers` lists them")
        if len({row.transfer_id for row in rows}) > 1:
            raise Conflict(f"{wanted} is the beginning of {len(rows)} transfers; give more")
        return rows[0]

    # -- both sides -----------------------------------------------------------------------

    async def set_state(
        self, row: Transfer, state: State, reason: str = "", *, operator: str = "node"
    ) -> Transfer:
        """Move a transfer to a state; staying where it is only changes the reason.

        Raises:
            Conflict: it has got to a state from where it cannot go there.
        """

        def work(db: Db) -> None:
            now = _by_id(db, row.id)
            if now.state is not state and not can_follow(now.state, state):
                raise Conflict(f"transfer {row.transfer_id.short()} is {now.state} already")
            if (now.state, now.reason) == (state, reason):
                return
            db.execute(
                "UPDATE transfers SET state = ?, reason = ?, updated_time = ? WHERE id = ?",
                (state, reason, time.time(), row.id),
            )
            if now.state is not state and state.is_final:
                facts: dict[str, object] = {"transfer": str(row.transfer_id), "state": state}
                audit_rows.append(db, f"transfer.{state}", facts, operator)

        return await self._change(row.id, work)

    async def find_received(self, peer: FacilityId, transfer_id: TransferId) -> Transfer | None:
        """Return a transfer that a peer sends us, if it is known here."""
        where = "direction = 'receive' AND peer = ? AND transfer_id = ?"
        rows = await self.find(where, (peer.digest, transfer_id.value))
        return rows[0] if rows else None

    async def set_untold(self, row: Transfer, *, is_untold: bool) -> Transfer:
        """Keep whether the receiver is still to be told that a transfer was taken back."""

        def work(db: Db) -> None:
            db.execute("UPDATE transfers SET untold = ? WHERE id = ?", (int(is_untold), row.id))

        return await self._change(row.id, work)

    async def note_progress(self, row: Transfer, done: int, carried: int) -> Transfer:
        """Keep how many sealed bytes are durable at the receiver and how many went by."""

        def work(db: Db) -> None:
            db.execute(
                "UPDATE transfers SET bytes_done = MAX(bytes_done, ?),"
                " bytes_carried = bytes_carried + ?, updated_time = ? WHERE id = ?",
                (done, carried, time.time(), row.id),
            )

        return await self._change(row.id, work)

    # -- the sender's side ----------------------------------------------------------------

    async def add_sends(
        self,
        sends: Sequence[tuple[Delivery, Document, bytes, Package, int]],
        operator: str,
    ) -> list[Transfer]:
        """Keep new deliveries of ours: durable once this returns.

        Args:
            sends: Delivery, its document, the sealed key, the package, its plaintext bytes.
            operator: Who asked for it.
        """

        def work(db: Db) -> list[Transfer]:
            rows = []
            for delivery, document, sealed_key, package, plaintext_bytes in sends:
                row_id = add_transfer(
                    db,
                    Direction.SEND,
                    delivery,
                    document,
                    sealed_key,
                    State.PENDING,
                    study_uid=package.study_uid,
                    plaintext_bytes=plaintext_bytes,
                )
                facts: dict[str, object] = {
                    "transfer": str(delivery.transfer_id),
                    "receiver": str(delivery.receiver),
                    "package": str(delivery.package_id),
                }
                audit_rows.append(db, "transfer.offered", facts, operator)
                rows.append(_by_id(db, row_id))
            return rows

        rows = await self._context.database.write(work)
        for row in rows:
            self.on_change(row)
        return rows

    async def sending_manifest(self, row: Transfer) -> Document:
        """Return the manifest of the package that a transfer of ours sends.

        Raises:
            NotFound: it was deleted here meanwhile.
        """

        def work(db: Db) -> Document:
            package = package_rows.get_package(db, row.origin, row.package_id)
            if package is None or package.state != "closed":
                raise NotFound("the package was deleted here before it was sent")
            return Document.decode(package_rows.manifest_document(db, package.id))

        return await self._context.database.read(work)

    async def keep_receipt(self, row: Transfer, receipt: Document) -> Transfer:
        """Keep a verified receipt: the transfer is delivered. Durable once this returns."""

        def work(db: Db) -> None:
            now = _by_id(db, row.id)
            if now.receipt is not None:
                return
            db.execute(
                "UPDATE transfers SET state = 'delivered', reason = '', receipt = ?,"
                " bytes_done = bytes_total, updated_time = ? WHERE id = ?",
                (receipt.encode(), time.time(), row.id),
            )
            _keep_manifest(db, row)
            facts: dict[str, object] = {
                "transfer": str(row.transfer_id),
                "receipt": receipt.digest().hex(),
            }
            audit_rows.append(db, "transfer.delivered", facts)

        return await self._change(row.id, work)

    # -- the receiver's side --------------------------------------------------------------

    async def keep_offer(
        self, delivery: Delivery, document: Document, sealed_key: bytes, *, is_held: bool
    ) -> Transfer:
        """Return the transfer of a delivery that was shown to us, kept if it is new.

        Raises:
            BadDelivery: the peer used this transfer id for another delivery before.
            PeerBusy: so many of its offers wait here that no more are kept.
        """

        def work(db: Db) -> Transfer:
            rows = _find(
                db,
                "direction = 'receive' AND peer = ? AND transfer_id = ?",
                (delivery.sender.digest, delivery.transfer_id.value),
            )
            if rows:
                if rows[0].delivery_digest != document.digest():
                    raise BadDelivery("the transfer id was used for another delivery before")
                return rows[0]
            waiting = db.execute(
                "SELECT COUNT(*) FROM transfers WHERE direction = 'receive' AND peer = ?"
                f" AND receipt IS NULL AND expires_time >= ? AND state IN ({_OPEN})",
                (delivery.sender.digest, time.time()),
            ).fetchone()[0]
            if waiting >= MAX_OPEN_OFFERS:
                raise PeerBusy("too many offers of this facility wait here", _FULL_SECONDS)
            state = State.HELD if is_held else State.CARRYING
            row_id = add_transfer(
                db, Direction.RECEIVE, delivery, document, sealed_key, state, study_uid=""
            )
            facts: dict[str, object] = {
                "transfer": str(delivery.transfer_id),
                "sender": str(delivery.sender),
                "state": state,
            }
            audit_rows.append(db, "offer.received", facts)
            return _by_id(db, row_id)

        row = await self._context.database.write(work)
        self.on_change(row)
        return row

    async def decide_offer(
        self, row: Transfer, *, accept: bool, reason: str, operator: str
    ) -> Transfer:
        """Keep a person's decision on a held offer.

        Raises:
            Conflict: it is not held.
        """

        def work(db: Db) -> None:
            now = _by_id(db, row.id)
            if now.direction is not Direction.RECEIVE or now.state is not State.HELD:
                raise Conflict(f"transfer {row.transfer_id.short()} is not a held offer")
            if accept:
                db.execute(
                    "UPDATE transfers SET accepted = 1, reason = 'accepted; waiting for the"
                    " sender', updated_time = ? WHERE id = ?",
                    (time.time(), row.id),
                )
            else:
                db.execute(
                    "UPDATE transfers SET state = 'declined', reason = ?, updated_time = ?"
                    " WHERE id = ?",
                    (reason, time.time(), row.id),
                )
            kind = "offer.accepted" if accept else "offer.declined"
            audit_rows.append(db, kind, {"transfer": str(row.transfer_id)}, operator)

        return await self._change(row.id, work)

    async def find_package(self, row: Transfer) -> Package | None:
        """Return the package that a transfer is about, in whatever state it is here."""
        return await self._context.database.read(
            lambda db: package_rows.get_package(db, row.origin, row.package_id)
        )

    async def stored_manifest(self, row: Transfer) -> Document | None:
        """Return the manifest kept for the package that a transfer is about, if there is one.

        A delivered transfer keeps it even when the package was deleted here.
        """

        def work(db: Db) -> Document | None:
            kept = db.execute(
                "SELECT manifest FROM transfer_manifests WHERE transfer = ?", (row.id,)
            ).fetchone()
            if kept is not None:
                return Document.decode(kept[0])
            package = package_rows.get_package(db, row.origin, row.package_id)
            if package is None or package.manifest_digest is None:
                return None
            return Document.decode(package_rows.manifest_document(db, package.id))

        return await self._context.database.read(work)

    async def begin_arrival(
        self, row: Transfer, data_key: DataKey, manifest: Manifest, document: Document
    ) -> Arrival:
        """Commit what must be there before the first chunk is written: key, manifest, chunks.

        Begun before, the same arrival goes on: with the chunks that were recorded.

        Raises:
            BadManifest: another manifest is kept for this package: equivocation.
            Conflict: the package is being deleted here.
        """
        context = self._context

        def work(db: Db) -> None:
            if _by_id(db, row.id).state.is_final:
                raise Conflict("the transfer was ended meanwhile")
            package = package_rows.get_package(db, row.origin, row.package_id)
            if package is None:
                epoch, wrapped = context.wrap(data_key, row.origin)
                package_id = package_rows.add_package(
                    db,
                    package_id=row.package_id,
                    origin=row.origin,
                    study_uid=manifest.study_instance_uid,
                    state="arriving",
                    epoch=epoch,
                    wrapped_key=wrapped,
                    received_from=row.peer,
                )
                db.execute(
                    "UPDATE packages SET manifest = ?, manifest_digest = ? WHERE id = ?",
                    (document.encode(), document.digest(), package_id),
                )
                package_rows.add_chunks(db, package_id, 0, manifest.chunks, present=False)
            elif package.manifest_digest != document.digest():
                facts: dict[str, object] = {
                    "package": str(row.package_id),
                    "origin": str(row.origin),
                    "sender": str(row.peer),
                }
                audit_rows.append(db, "alarm.equivocation", facts)
            elif package.state == "deleting":
                raise Conflict("the package is being deleted here; offer it again later")
            db.execute(
                "UPDATE transfers SET study_uid = ?, plaintext_bytes = ?, state = 'carrying',"
                " reason = '', updated_time = ? WHERE id = ?",
                (manifest.study_instance_uid, manifest.plaintext_bytes, time.time(), row.id),
            )

        await self._change(row.id, work)
        return await self.arrival(row, document.digest())

    async def arrival(self, row: Transfer, manifest_digest: bytes) -> Arrival:
        """Return an arrival that was begun.

        Raises:
            BadManifest: another manifest is kept for this package: equivocation.
        """

        def work(db: Db) -> tuple[Package, frozenset[int]]:
            package = package_rows.get_package(db, row.origin, row.package_id)
            if package is None:
                raise NotFound("the arrival was not begun")
            positions = db.execute(
                "SELECT position FROM chunks WHERE package = ? AND present = 1", (package.id,)
            )
            return package, frozenset(r[0] for r in positions)

        package, present = await self._context.database.read(work)
        if package.manifest_digest != manifest_digest:
            raise BadManifest("another manifest is kept here for the same package")
        return Arrival(package, self._context.data_key(package), present)

    async def mark_present(self, arrival: Arrival, positions: Sequence[int]) -> None:
        """Record chunks as durable; their directories have been synced."""

        def work(db: Db) -> None:
            db.conn.executemany(
                "UPDATE chunks SET present = 1 WHERE package = ? AND position = ?",
                [(arrival.package.id, position) for position in positions],
            )

        await self._context.database.write(work)

    async def commit_arrival(
        self,
        row: Transfer,
        manifest: Manifest,
        manifest_document: Document,
        index: Sequence[dict[str, str]],
    ) -> Transfer:
        """Commit a whole package whose chunks are all durable, opened and checked.

        The envelope is synced first. Then one transaction makes the package visible and keeps
        the signed receipt and the audit entry. Only after that may the receipt leave.
        """
        return await trio.to_thread.run_sync(
            self._commit_arrival, row, manifest, manifest_document, index
        )

    def _commit_arrival(
        self,
        row: Transfer,
        manifest: Manifest,
        manifest_document: Document,
        index: Sequence[dict[str, str]],
    ) -> Transfer:
        context = self._context
        package = context.database.read_sync(
            lambda db: package_rows.get_package(db, row.origin, row.package_id)
        )
        if package is None:
            raise NotFound("the arrival was discarded meanwhile")
        encoded = manifest_document.encode()
        if package.state == "arriving":
            context.envelopes.put(
                Envelope(
                    package.package_id,
                    package.origin,
                    package.epoch,
                    package.wrapped_key,
                    encoded,
                    row.delivery,
                )
            )
        receipt = Receipt(
            transfer_id=row.transfer_id,
            delivery_digest=row.delivery_digest,
            manifest_digest=manifest_document.digest(),
            package_id=row.package_id,
            receiver=context.facility,
            instances=len(manifest.instances),
            plaintext_bytes=manifest.plaintext_bytes,
            received_time=time.time(),
        )
        signed = sign_receipt(receipt, context.signer)

        def work(db: Db) -> Transfer:
            now = _by_id(db, row.id)
            if now.receipt is not None:
                return now
            if now.state.is_final:
                raise Conflict(f"the transfer is {now.state} already")
            here = package_rows.get_package(db, row.origin, row.package_id)
            if here is not None and here.state == "arriving":
                package_rows.add_instances(db, here.id, 0, manifest.instances)
                for values in index:
                    package_rows.merge_index(db, here.id, values)
                package_rows.close_package(db, here.id, encoded, manifest_document.digest())
            elif here is None or here.state != "closed":
                raise Conflict("the package was deleted here meanwhile")
            db.execute(
                "UPDATE transfers SET state = 'delivered', reason = '', receipt = ?,"
                " study_uid = ?, bytes_done = bytes_total, plaintext_bytes = ?,"
                " updated_time = ?, received_time = ? WHERE id = ?",
                (
                    signed.encode(),
                    manifest.study_instance_uid,
                    manifest.plaintext_bytes,
                    time.time(),
                    receipt.received_time,
                    row.id,
                ),
            )
            _keep_manifest(db, row)
            facts: dict[str, object] = {
                "transfer": str(row.transfer_id),
                "package": str(row.package_id),
                "sender": str(row.peer),
                "receipt": signed.digest().hex(),
            }
            audit_rows.append(db, "transfer.received", facts)
            return _by_id(db, row.id)

        committed = context.database.write_sync(work)
        self.on_change(committed)
        return committed

    async def discard_arrival(self, row: Transfer) -> list[int]:
        """Return the package rows to remove after an arrival ended without a receipt.

        None, while another transfer that is not final is about the same package.
        """
        package = await self.find_package(row)
        if package is None or package.state != "arriving":
            return []
        others = await self.find(
            "direction = 'receive' AND origin = ? AND package_id = ? AND id != ?"
            f" AND state NOT IN ({_FINAL})",
            (row.origin.digest, row.package_id.digest, row.id),
        )
        return [] if others else [package.id]

    async def forget_chunk(self, arrival: Arrival, position: int) -> None:
        """Record a chunk as not there: it was damaged here."""
        await self._context.database.write(
            lambda db: db.execute(
                "UPDATE chunks SET present = 0 WHERE package = ? AND position = ?",
                (arrival.package.id, position),
            )
        )

    async def expired(self, now: float) -> list[Transfer]:
        """Return transfers to us that are not final and whose delivery stands no longer."""
        where = f"direction = 'receive' AND state NOT IN ({_FINAL}) AND expires_time < ?"
        return await self.find(where, (now,))

    async def forget_expired(self, now: float) -> int:
        """Remove offers to us that ended without a receipt and cannot be replayed any more."""
        sql = (
            f"DELETE FROM transfers WHERE direction = 'receive' AND state IN ({_FINAL})"
            " AND receipt IS NULL AND expires_time < ?"
        )
        return await self._context.database.write(lambda db: int(db.execute(sql, (now,)).rowcount))

    async def reload(self, row: Transfer) -> Transfer:
        """Return a transfer as it now stands."""
        return await self._context.database.read(lambda db: _by_id(db, row.id))


def _keep_manifest(db: Db, row: Transfer) -> None:
    """Keep the manifest beside delivery and receipt: the proof outlives the package."""
    db.execute(
        "INSERT OR IGNORE INTO transfer_manifests SELECT ?, manifest FROM packages"
        " WHERE origin = ? AND package_id = ? AND manifest IS NOT NULL",
        (row.id, row.origin.digest, row.package_id.digest),
    )


_FINAL = "'delivered', 'declined', 'cancelled', 'failed'"
_OPEN = "'pending', 'held', 'carrying', 'checking'"
MAX_OPEN_OFFERS = 10_000
"""How many offers of one peer are kept while they are not final."""
_FULL_SECONDS = 300.0


def add_transfer(
    db: Db,
    direction: Direction,
    delivery: Delivery,
    document: Document,
    sealed_key: bytes,
    state: State,
    *,
    study_uid: str,
    plaintext_bytes: int = 0,
) -> int:
    """Add a transfer's row, inside the caller's transaction; return its number."""
    now = time.time()
    peer = delivery.receiver if direction is Direction.SEND else delivery.sender
    values = {
        "transfer_id": delivery.transfer_id.value,
        "direction": direction,
        "peer": peer.digest,
        "origin": delivery.origin.digest,
        "package_id": delivery.package_id.digest,
        "study_uid": study_uid,
        "priority": int(delivery.priority),
        "state": state,
        "delivery": document.encode(),
        "delivery_digest": document.digest(),
        "sealed_key": sealed_key,
        "bytes_total": delivery.sealed_bytes,
        "instances": delivery.instances,
        "plaintext_bytes": plaintext_bytes,
        "recipient": delivery.recipient,
        "note": delivery.note,
        "created_time": now,
        "updated_time": now,
        "expires_time": delivery.expires_time,
    }
    cursor = db.execute(
        f"INSERT INTO transfers ({', '.join(values)}) VALUES ({marks(list(values))})",
        tuple(values.values()),
    )
    return int(cursor.lastrowid or 0)


def _find(db: Db, where: str, args: Sequence[object]) -> list[Transfer]:
    sql = f"SELECT * FROM transfers WHERE {where} ORDER BY id DESC"
    return [_row(row) for row in db.query(sql, tuple(args))]


def _by_id(db: Db, row_id: int) -> Transfer:
    rows = _find(db, "id = ?", (row_id,))
    if not rows:
        raise NotFound("the transfer is gone")
    return rows[0]
