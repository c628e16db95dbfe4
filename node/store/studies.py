"""Studies as people see them: listed, searched, read, deleted."""

from collections.abc import Sequence

import trio

from node.domain.actors import Actor
from node.domain.ids import FacilityId
from node.domain.manifest import StudyInstanceUID
from node.domain.packages import Package
from node.domain.patients import Patient
from node.domain.studies import Chosen, Deleted, SentTo, StudySource
from node.errors import Conflict
from node.sql.database import Db
from node.store import (
    audit_rows,
    choosing,
    deletions,
    findings,
    import_rows,
    package_rows,
    patients,
)
from node.store.catalogue import images_by_series, series_of
from node.store.context import StoreContext
from node.store.removal import remove_packages
from node.system import clock

_SHOWN_ATTACHMENTS = 20
"""Of each package, where one study is shown."""


class StudyStore:
    """Closed packages, grouped by study and origin."""

    def __init__(self, context: StoreContext) -> None:
        self._context = context

    async def sources(self, studies: Sequence[tuple[str, FacilityId]]) -> list[StudySource]:
        """Return what is known of studies; without those that were deleted meanwhile."""

        def work(db: Db) -> list[StudySource]:
            return [_source(db, uid, origin) for uid, origin in studies]

        return [source for source in await self._context.database.read(work) if source.packages]

    async def get(self, text: str) -> tuple[Chosen, list[StudySource]]:
        """Return the study that a person means, once per origin, with its series.

        Raises:
            NotFound, Conflict: see `choosing.choose_study`.
        """

        def work(db: Db) -> tuple[Chosen, list[StudySource]]:
            chosen = choosing.choose_study(db, text)
            rows = db.execute(
                "SELECT DISTINCT origin FROM packages WHERE state = 'closed' AND study_uid = ?",
                (chosen.study_uid,),
            ).fetchall()
            origins = sorted((FacilityId(row[0]) for row in rows), key=lambda o: o != chosen.origin)
            sources = [_source(db, chosen.study_uid, origin) for origin in origins]
            for source in sources:
                source.series_rows = series_of(db, source.study_uid, source.origin)
                for row in source.packages:
                    row["attachments"] = package_rows.get_attachments(
                        db, int(str(row["id"])), _SHOWN_ATTACHMENTS
                    )
            return chosen, sources

        return await self._context.database.read(work)

    async def uid_or_beginning(self, text: str) -> tuple[str, bool]:
        """Return a study's UID, or the beginning of some, and whether it is whole.

        Raises:
            NotFound, Conflict: see `choosing.uid_or_beginning`.
        """
        return await self._context.database.read(lambda db: choosing.uid_or_beginning(db, text))

    async def note_shown(self, sources: Sequence[StudySource], actor: Actor) -> None:
        """Record that somebody was shown a study, so that retention may delete it."""
        facts: dict[str, object] = {
            "study": sources[0].study_uid,
            "origins": [str(source.origin) for source in sources],
        }
        numbers = [int(str(row["id"])) for source in sources for row in source.packages]

        def work(db: Db) -> None:
            audit_rows.append(db, "study.shown", facts, actor)
            package_rows.note_looked(db, numbers)

        await self._context.database.write(work)

    async def packages(
        self, text: str, origin: str = "", *, is_equal_one: bool = True
    ) -> list[Package]:
        """Return one origin's closed packages of the study that a person means, oldest first.

        Raises:
            NotFound, Conflict: see `choosing.choose`.
        """

        def work(db: Db) -> list[Package]:
            me = self._context.facility
            uid, chosen = choosing.choose(db, text, origin, me, is_equal_one=is_equal_one)
            return package_rows.closed_packages(db, uid, chosen)

        return await self._context.database.read(work)

    async def delete(self, text: str, origin: str, actor: Actor) -> Deleted:
        """Delete one origin's packages of a study here; held imports, in no package, stay.

        Durable once this returns; if it is cancelled after its transaction, the next sweep deletes
        the chunks.

        Raises:
            NotFound: no such study, or none from that origin.
            SeveralOrigins: it came from several facilities and none is named.
            Conflict: it is being sent.
        """
        rows = await self.packages(text, origin, is_equal_one=False)

        def work(db: Db) -> Deleted:
            instances = 0
            for package in rows:
                busy = db.execute(
                    "SELECT 1 FROM transfers WHERE origin = ? AND package_id = ? AND direction ="
                    " 'send' AND state NOT IN ('delivered', 'declined', 'cancelled', 'failed')",
                    (package.origin.digest, package.package_id.digest),
                ).fetchone()
                if busy:
                    raise Conflict("the study is being sent; cancel its transfers first")
                changed = db.execute(
                    "UPDATE packages SET state = 'deleting' WHERE id = ? AND state = 'closed'",
                    (package.id,),
                )
                if changed.rowcount != 1:
                    continue  # somebody deletes it already
                instances += len(package_rows.get_instances(db, package.id))
                facts: dict[str, object] = {
                    "package": str(package.package_id),
                    "study": package.study_uid,
                    "origin": str(package.origin),
                }
                audit_rows.append(db, "package.deleted", facts, actor)
                deletions.note(db, package.origin, package.package_id, clock.now())
            study = rows[0].study_uid, rows[0].origin
            held = findings.held_imports(db, *study)
            return Deleted(len(rows), instances, held, import_rows.of_study(db, *study))

        deleted = await self._context.database.write(work, in_need=True)
        await trio.to_thread.run_sync(remove_packages, self._context, [])
        return deleted


# The latest delivered transfer of a package by its first sender. Other facilities may send the same
# package too; recipient, note and priority of theirs are shown separately.
_BROUGHT_BY = (
    "SELECT MAX(b.id) FROM transfers b WHERE b.direction = 'receive' AND b.state = 'delivered'"
    " AND b.origin = p.origin AND b.package_id = p.package_id AND b.peer = p.received_from"
)
_FURTHER = (
    "SELECT peer, received_time, recipient, note, priority FROM transfers WHERE id IN"
    " (SELECT MAX(id) FROM transfers WHERE direction = 'receive' AND state = 'delivered'"
    " AND origin = ? AND package_id = ? AND peer != ? GROUP BY peer) ORDER BY id DESC LIMIT 8"
)


def _source(db: Db, study_uid: str, origin: FacilityId) -> StudySource:
    source = StudySource(StudyInstanceUID(study_uid), origin)
    args = (study_uid, origin.digest)
    inside = "p.state = 'closed' AND p.study_uid = ? AND p.origin = ?"
    for row in db.query(
        "SELECT p.id, p.package_id, p.created_time, p.received_from, s.*,"
        " t.recipient, t.note, t.priority, t.received_time,"
        " (SELECT COUNT(*) FROM instances WHERE package = p.id) AS instances,"
        " (SELECT COUNT(*) FROM attachments WHERE package = p.id) AS attachments_total,"
        " (SELECT SUM(plaintext_bytes) FROM chunks WHERE package = p.id) AS plaintext_bytes,"
        " (SELECT SUM(sealed_bytes) FROM chunks WHERE package = p.id) AS sealed_bytes"
        f" FROM packages p LEFT JOIN study_index s ON s.package = p.id"
        f" LEFT JOIN transfers t ON t.id = ({_BROUGHT_BY}) WHERE {inside} ORDER BY p.id",
        args,
    ):
        counts = findings.counts(db, row["id"])
        source.packages.append(
            {
                **row,
                "held": counts["held"],
                "flagged": counts["flagged"],
                "further": _further(db, origin, row),
                "hold_reasons": findings.reasons(db, row["id"]) if counts["held"] else (),
            }
        )
        source.plaintext_bytes += row["plaintext_bytes"]
        source.sealed_bytes += row["sealed_bytes"]
        source.newest_time = max(source.newest_time, row["created_time"])
        source.number = source.number or row["id"]
        for name in package_rows.STUDY_COLUMNS.values():
            source.index[name] = source.index.get(name) or row[name] or ""
        words = {*source.index.get("modalities", "").split(), *(row["modalities"] or "").split()}
        source.index["modalities"] = " ".join(sorted(words))
    source.series, everything = db.execute(
        "SELECT COUNT(DISTINCT i.series_uid), COUNT(DISTINCT i.digest)"
        f" FROM instances i JOIN packages p ON p.id = i.package WHERE {inside}",
        args,
    ).fetchone()
    # Of one patient all values: those of several do not mix.
    source.patients = patients.of_study(db, study_uid, origin) or [Patient()]
    first = source.patients[0]
    source.index |= {
        "patient_name": first.name,
        "patient_id": first.patient_id,
        "birth_date": first.birth_date,
        "sex": first.sex,
    }
    source.unfinished_imports = import_rows.of_study(db, study_uid, origin)
    # Only a later package has another version of anything.
    is_versioned = len(source.packages) > 1
    images = images_by_series(db, study_uid, origin) if is_versioned else {}
    source.instances = sum(images.values()) if is_versioned else everything
    source.versioned_instances = everything - source.instances
    source.sent_to = _sent_to(db, source)
    return source


def _sent_to(db: Db, source: StudySource) -> list[SentTo]:
    """Return the facilities that gave receipts for a study, and how many instances each has."""
    here = {row["package_id"]: row["instances"] for row in source.packages}
    found: dict[bytes, list[tuple[bytes, float, float]]] = {}
    for peer, *delivered in db.execute(
        "SELECT peer, package_id, MAX(updated_time), CASE WHEN MIN(deleted_time) = 0 THEN 0 ELSE"
        " MAX(deleted_time) END FROM transfers WHERE direction = 'send' AND state = 'delivered'"
        " AND study_uid = ? AND origin = ? GROUP BY peer, package_id",
        (source.study_uid, source.origin.digest),
    ):
        found.setdefault(peer, []).append(tuple(delivered))
    return [
        SentTo(
            peer=peer,
            delivered_time=max(when for _, when, _ in packages),
            deleted_time=max(deleted for *_, deleted in packages)
            if all(deleted for *_, deleted in packages)
            else 0.0,
            instances=sum(int(str(here.get(p, 0))) for p, _, deleted in packages if not deleted),
        )
        for peer, packages in found.items()
    ]


def _further(db: Db, origin: FacilityId, package: dict[str, object]) -> list[dict[str, object]]:
    first = package["received_from"] or b""
    return list(db.query(_FURTHER, (origin.digest, package["package_id"], first)))
