"""Remembered records of members: used when no directory answers."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from node.documents.network import Network, Record, open_record
from node.domain.ids import FacilityId, NetworkId
from node.sql.database import Db
from node.store.context import StoreContext, marks

_HOUR_SECONDS = 3600.0
_KEPT_SECONDS = 30 * 86400.0


class RecordStore:
    """The newest record of each facility in each network."""

    def __init__(self, context: StoreContext) -> None:
        self._database = context.database

    async def keep(self, network: NetworkId, records: Sequence[Record], now: float) -> None:
        """Keep records that are newer than the stored ones; forget those not seen for 30 days.

        An unchanged record that was seen within the hour is not written again, so that presence
        costs no writes. Records of a network that the facility has left are not kept.
        """

        def work(db: Db) -> None:
            for record in records:
                if _is_newer(db, network, record, now):
                    _put(db, network, record, now)
            earliest = now - _KEPT_SECONDS
            db.execute("DELETE FROM records WHERE seen_time < ?", (earliest,))

        if await self._database.read(lambda db: _any_newer(db, network, records, now)):
            await self._database.write(work)

    async def keep_only(self, network: NetworkId, facilities: Iterable[FacilityId]) -> None:
        """Forget the records of all other facilities of a network."""
        kept = {f.digest for f in facilities}

        def work(db: Db) -> None:
            sql = "SELECT facility FROM records WHERE network = ?"
            for (facility,) in db.execute(sql, (network.digest,)).fetchall():
                if bytes(facility) not in kept:
                    db.execute(
                        "DELETE FROM records WHERE network = ? AND facility = ?",
                        (network.digest, facility),
                    )

        await self._database.write(work)

    async def seen(self, network: NetworkId, now: float) -> Mapping[FacilityId, float]:
        """Return when the facilities of a network were seen, within 30 days."""
        found = await self._columns(network, "seen_time", now)
        return {facility: float(seen) for facility, seen in found.items()}

    async def texts(self, network: NetworkId, now: float) -> Mapping[FacilityId, Sequence[str]]:
        """Return by which texts the facilities of a network are found."""
        found = await self._columns(network, "texts", now)
        return {facility: json.loads(texts) for facility, texts in found.items()}

    async def _columns(self, network: NetworkId, column: str, now: float) -> dict[FacilityId, Any]:
        sql = f"SELECT facility, {column} FROM records WHERE network = ? AND seen_time >= ?"
        values = (network.digest, now - _KEPT_SECONDS)
        rows = await self._database.read(lambda db: db.execute(sql, values).fetchall())
        return {FacilityId(facility): value for facility, value in rows}

    async def get(
        self, network: Network, facilities: Sequence[FacilityId], now: float
    ) -> list[Record]:
        """Return what is kept of facilities, in their order, verified anew.

        Raises:
            DocumentError: a stored record does not verify.
        """
        sql = (
            "SELECT * FROM records WHERE network = ? AND seen_time >= ?"
            f" AND facility IN ({marks(facilities)})"
        )
        values = (network.id.digest, now - _KEPT_SECONDS, *(f.digest for f in facilities))
        rows = await self._database.read(lambda db: list(db.query(sql, values)))
        found = {
            FacilityId(row["facility"]): open_record(
                row["statements"],
                row["listing"],
                row["membership"],
                network.network_key,
                is_online=False,
                seen_time=row["seen_time"],
            )
            for row in rows
        }
        return [found[facility] for facility in facilities if facility in found]


def _any_newer(db: Db, network: NetworkId, records: Sequence[Record], now: float) -> bool:
    return any(_is_newer(db, network, record, now) for record in records)


def _is_newer(db: Db, network: NetworkId, record: Record, now: float) -> bool:
    """Return whether to write a record: it is newer than the stored one, or that one is stale."""
    sql = (
        "SELECT generation, profile_seconds, listing_seconds, membership, seen_time FROM records"
        " WHERE network = ? AND facility = ?"
    )
    values = (network.digest, record.identity.facility_id.digest)
    kept = db.execute(sql, values).fetchone()
    if kept is None:
        return _is_joined(db, network)
    *issued, membership, seen = kept
    if _issued(record) != tuple(issued):
        return _issued(record) > tuple(issued)
    is_recent = seen <= now < seen + _HOUR_SECONDS
    return not is_recent or membership != record.membership.encoded


def _is_joined(db: Db, network: NetworkId) -> bool:
    sql = "SELECT 1 FROM networks WHERE network = ?"
    return db.execute(sql, (network.digest,)).fetchone() is not None


def _put(db: Db, network: NetworkId, record: Record, now: float) -> None:
    identity, listing = record.identity, record.listing
    texts = (
        record.membership.invitation.display_name,
        identity.profile.display_name,
        listing.city,
        *listing.departments,
    )
    db.execute(
        "INSERT OR REPLACE INTO records (network, facility, statements, listing, membership,"
        " generation, profile_seconds, listing_seconds, texts, seen_time)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            network.digest,
            identity.facility_id.digest,
            identity.encoded,
            record.signed_listing,
            record.membership.encoded,
            *_issued(record),
            json.dumps(texts),
            now,
        ),
    )


def _issued(record: Record) -> tuple[int, int, int]:
    """Sort key that grows with later records of a facility; a replaced node sorts lowest."""
    identity = record.identity
    return (
        identity.cert.generation,
        identity.profile.issued_seconds,
        record.listing.issued_seconds,
    )
