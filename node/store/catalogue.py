"""The catalogue in the database: studies, series and instances, found by their attributes.

How this works. SQL finds packages: the most selective key goes first, through an index or one
narrow table, and the other keys are tested on each package found. Conditions that SQL cannot
express exactly are tested again in Python. A study matches if one of its packages matches. Series
and instances are read study by study.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from node.domain.actors import Actor
from node.domain.catalogue import Found
from node.domain.display_text import MOST_FINDABLE, encodable
from node.domain.ids import FacilityId
from node.domain.index import IMAGE_KEYWORDS
from node.domain.manifest import StudyInstanceUID
from node.domain.patients import Patient
from node.domain.query import Criterion, Kind, Level, Query
from node.errors import UsageError
from node.sql.database import Db
from node.store import package_rows, patients
from node.store.audit import AuditStore
from node.store.context import StoreContext, marks

MOST_WALKED = 10_000
"""Studies whose series or instances are scanned for one query, at most."""

MOST_ANSWERS = 20_000
"""Answers to one question: all of them are in memory at once."""

_MOST_PATTERNS = 100  # of one key: SQLite bounds how deep a condition is

_LAST = "\U0010ffff"
_LEAST_RUN = 2  # characters of a pattern that are looked for in all words; fewer are in most
_UID_BEGINNING = re.compile(r"[0-9]+\.[0-9.]*")
_ONE_PATIENT = {
    "PatientID": "patient_id",
    "PatientBirthDate": "birth_date",
    "PatientSex": "sex",
}
"""Keys that must all match the same patient, and their columns."""

_IMAGE_UIDS = {"SeriesInstanceUID": "series_uid", "SOPInstanceUID": "sop_instance_uid"}

_OF_STUDY = {k: c for k, c in package_rows.STUDY_COLUMNS.items() if k not in _ONE_PATIENT}
_OF_STUDY = {k: c for k, c in _OF_STUDY.items() if k != "PatientName"}
_OF_STUDY["ModalitiesInStudy"] = "modalities"


class CatalogueStore:
    """Answers questions to the catalogue."""

    def __init__(self, context: StoreContext, audit: AuditStore) -> None:
        self._database = context.database
        self._audit = audit

    async def studies(self, query: Query) -> list[tuple[StudyInstanceUID, FacilityId]]:
        """Return the studies that match, newest first, whatever the query's level.

        Each is one origin's.
        """

        def work(db: Db) -> list[tuple[StudyInstanceUID, FacilityId]]:
            end = query.offset + query.limit if query.limit else None
            found = islice(matching_studies(db, query), query.offset, end)
            return [(uid, origin) for uid, origin, _ in found]

        return await self._database.read(work)

    async def find(self, query: Query) -> list[Found]:
        """Return what matches, the newest study first; of a study its series by their number.

        Raises:
            UsageError: the question would have to look through too many studies.
        """

        def work(db: Db) -> list[Found]:
            end = query.offset + (query.limit or MOST_ANSWERS + 1)
            found = list(islice(_matching(db, query), query.offset, end))
            if len(found) > MOST_ANSWERS:
                raise UsageError(
                    f"the {query.level} search is too wide: it has more than {MOST_ANSWERS}"
                    " answers; name a patient, a study or a day, or set a limit"
                )
            return found

        return await self._database.read(work)

    async def note_queried(self, query: Query, answers: int, actor: Actor) -> None:
        """Record what was asked by whom, durably; what is repeated within minutes is not."""
        keys = {c.attribute.keyword: c.text for c in query.criteria}
        facts: dict[str, object] = {
            "level": query.level.value,
            "query": encodable(" ".join(query.words)),
            "keys": {keyword: encodable(text) for keyword, text in keys.items()},
            "arrived": query.arrived_only,
            "offset": query.offset,
            "limit": query.limit,
            "answers": answers,
        }
        await self._audit.note_list("catalogue.queried", facts, actor)


def _matching(db: Db, query: Query) -> Iterator[Found]:
    for walked, (uid, origin, package) in enumerate(matching_studies(db, query)):
        if query.level is not Level.STUDY and walked == MOST_WALKED:
            raise UsageError(
                f"the {query.level} search is too wide: it would look through more than"
                f" {MOST_WALKED} studies; name a patient, a study or a day"
            )
        number, study = _study_values(db, uid, origin, package, query)
        if query.level is Level.STUDY:
            yield Found(uid, origin, number, study)
            continue
        matching = [
            series
            for series in series_of(db, uid, origin)
            if _all_match(query.at(Level.SERIES), series)
        ]
        if query.level is Level.SERIES:
            for series in matching:
                yield Found(uid, origin, number, {**study, **series})
            continue
        images = images_of(db, uid, origin, query) if matching else {}
        for series in matching:
            for image in images.get(series["SeriesInstanceUID"], ()):
                if _all_match(query.at(Level.IMAGE), image):
                    yield Found(uid, origin, number, {**study, **series, **image})


def _all_match(criteria: Sequence[Criterion], values: Mapping[str, str]) -> bool:
    return all(one.matches(values.get(one.attribute.keyword, "")) for one in criteria)


# -- studies --------------------------------------------------------------------------------------


def matching_studies(db: Db, query: Query) -> Iterator[tuple[StudyInstanceUID, FacilityId, int]]:
    """Yield the studies that match, newest first, each of an origin once.

    With each comes the row of the newest of its packages that matches.
    """
    seen: set[tuple[str, bytes]] = set()
    checked = [one for one in query.at(Level.STUDY) if one.attribute.keyword in _OF_STUDY]
    columns = "".join(f", i.{_OF_STUDY[one.attribute.keyword]}" for one in checked)
    tables, conditions, args = _asked(query)
    newest = "w.package" if tables.startswith("study_words") else "p.id"
    rows = db.execute(
        f"SELECT p.study_uid, p.origin, p.id{columns} FROM {tables}"
        f" {'LEFT JOIN study_index i ON i.package = p.id' if checked else ''}"
        f" WHERE {' AND '.join(conditions)} ORDER BY {newest} DESC",
        args,
    )
    # No GROUP BY: SQLite would read all rows before it returns the newest.
    for uid, origin, package, *values in rows:
        if (uid, origin) in seen:
            continue
        if all(c.matches(value or "") for c, value in zip(checked, values, strict=True)):
            seen.add((uid, origin))
            yield StudyInstanceUID(uid), FacilityId(origin), int(package)


@dataclass(frozen=True, slots=True)
class _Condition:
    """What is asked of packages through another table.

    Attributes:
        table: With its alias `x`; its column `package` says of which package a row is.
        where: The condition on it.
        args: Its arguments.
        rank: How few packages it is likely to leave; the lowest is asked first.
    """

    table: str
    where: str
    args: Sequence[object]
    rank: int


_SELECTIVE, _SOME, _MANY = range(3)


def _asked(query: Query) -> tuple[str, list[str], list[object]]:
    """Return tables, conditions and arguments that find the packages `p`."""
    conditions, args = ["p.state = 'closed'"], list[object]()
    if query.arrived_only:
        conditions.append("p.received_from IS NOT NULL")
    uids = [c.values for c in query.criteria if c.attribute.keyword == "StudyInstanceUID"]
    for values in uids:
        conditions.append(f"p.study_uid IN ({marks(values)})")
        args += values
    for one in query.criteria:
        if column := _IMAGE_UIDS.get(one.attribute.keyword):
            # Of the study, not of the package: the other keys may hold in another one.
            conditions.append(
                "p.study_uid IN (SELECT q.study_uid FROM instances x JOIN packages q"
                f" ON q.id = x.package WHERE x.{column} IN ({marks(one.values)}))"
            )
            args += one.values
            uids.append(one.values)
    through = sorted(_through(query), key=lambda one: one.rank)
    is_first_asked = bool(through) and not uids and through[0].rank < _MANY
    for i, asked in enumerate(through):
        if i == 0 and is_first_asked:
            conditions.append(f"p.id IN (SELECT x.package FROM {asked.table} WHERE {asked.where})")
        else:
            conditions.append(
                f"EXISTS (SELECT 1 FROM {asked.table} WHERE x.package = p.id AND {asked.where})"
            )
        args += asked.args
    words, word_args = _words(query)
    if not words:
        return "packages p", conditions, args
    if uids or is_first_asked:
        condition = " AND ".join(words)
        conditions.append(
            f"EXISTS (SELECT 1 FROM study_words w WHERE w.package = p.id AND {condition})"
        )
    else:
        conditions += words
    # The order of a CROSS JOIN is kept: all words are read one after the other, newest first.
    tables = (
        "packages p"
        if uids or is_first_asked
        else ("study_words w CROSS JOIN packages p ON p.id = w.package")
    )
    return tables, conditions, args + word_args


def _asked_of_patient(query: Query) -> _Condition | None:
    """Return what is asked of one patient; None if nothing is."""
    asked = [
        _of_patient(one)
        for one in query.at(Level.STUDY)
        if one.attribute.keyword in (*_ONE_PATIENT, "PatientName")
    ]
    if not asked:
        return None
    return _Condition(
        "patients x",
        " AND ".join(where for where, _, _ in asked),
        [arg for _, args, _ in asked for arg in args],
        min(rank for _, _, rank in asked),
    )


def _through(query: Query) -> Iterator[_Condition]:
    """Yield the conditions through other tables; each is necessary, but may not be sufficient."""
    if of_patient := _asked_of_patient(query):
        yield of_patient
    for one in query.criteria:
        keyword = one.attribute.keyword
        match keyword:
            case "AccessionNumber":
                where, args, rank = _in_column("x.accession_number", one, "COLLATE NOCASE")
                where = f"x.accession_number != '' AND {where}"
                yield _Condition("study_index x", where, args, rank)
            case "StudyDate":
                where, args = _between("x.study_date", one)
                yield _Condition("study_index x", where, args, _SOME)


def _of_patient(one: Criterion) -> tuple[str, Sequence[object], int]:
    """Return a condition on a row `x` of patients, its arguments and rank."""
    keyword = one.attribute.keyword
    if keyword == "PatientName":
        where, args, rank = _in_column("n.form", one)
        return f"x.id IN (SELECT n.patient FROM patient_names n WHERE {where})", args, rank
    column = f"x.{_ONE_PATIENT[keyword]}"
    if one.attribute.kind is Kind.DATE:
        return *_between(column, one), _MANY
    where, args, rank = _in_column(column, one)
    return where, args, rank if keyword == "PatientID" else _MANY


def _between(column: str, one: Criterion) -> tuple[str, list[object]]:
    low, high = one.low or "00000000", one.high or "99999999"
    is_day = f"LENGTH({column}) = 8 AND {column} NOT GLOB '*[^0-9]*'"
    return f"({column} BETWEEN ? AND ? AND {is_day})", [low, high]


def _in_column(column: str, one: Criterion, collation: str = "") -> tuple[str, list[object], int]:
    """Return the condition that a column has one of some values or patterns, and its rank."""
    patterns = [one_of for one_of in one.values if set(one_of) & set("*?")]
    if len(patterns) > _MOST_PATTERNS:
        raise UsageError(
            f"{one.attribute.keyword}: at most {_MOST_PATTERNS} values with wildcards are looked"
            " for at once"
        )
    plain = [one_of for one_of in one.values if not set(one_of) & set("*?")]
    parts, args, rank = list[str](), list[object](plain), _SELECTIVE
    if plain:
        parts.append(f"{column} {collation} IN ({marks(plain)})")
    for pattern in patterns:
        beginning = re.split(r"[*?]", pattern, maxsplit=1)[0]
        parts.append(f"({column} >= ? AND {column} < ? AND {column} GLOB ?)")
        args += [beginning, beginning + _LAST, pattern.replace("[", "[[]")]
        rank = max(rank, _SELECTIVE if len(beginning) > 1 else _SOME)
    return f"({' OR '.join(parts)})", args, rank


def _words(query: Query) -> tuple[list[str], list[object]]:
    """Return conditions on a row `w` of study_words, and their arguments.

    Each search word must occur in it or begin the study's UID. A text criterion with one pattern
    adds the runs of characters that a match must contain.
    """
    conditions, args = list[str](), list[object]()
    for word in query.words:
        begins = _UID_BEGINNING.fullmatch(word)
        conditions.append(
            "(w.words LIKE ? ESCAPE '\\' OR w.package IN"
            " (SELECT id FROM packages WHERE study_uid >= ? AND study_uid < ? || ':'))"
            if begins
            else "w.words LIKE ? ESCAPE '\\'"
        )
        args += [_containing(word), *((word, word) if begins else ())]
    for one in query.at(Level.STUDY):
        if one.attribute.keyword in _OF_STUDY and one.attribute.kind in (Kind.TEXT, Kind.NAME):
            # Of several patterns, which a name has, any will do: what they share is the longest.
            runs = re.split(r"[*?]+", one.values[0])
            for run in (run for run in runs if len(run) >= _LEAST_RUN and len(one.values) == 1):
                conditions.append("w.words LIKE ? ESCAPE '\\'")
                args.append(_containing(run))
    return conditions, args


def _containing(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped[:MOST_FINDABLE]}%"


_PACKAGES = "p.state = 'closed' AND p.study_uid = ? AND p.origin = ?"


def _study_values(
    db: Db, uid: StudyInstanceUID, origin: FacilityId, package: int, query: Query
) -> tuple[int, dict[str, str]]:
    """Return a study's number and values.

    Each value comes from the package that was found, or else from the first package that has it.
    """
    columns = {**package_rows.STUDY_COLUMNS, "ModalitiesInStudy": "modalities"}
    rows = db.execute(
        f"SELECT p.id, p.instances, {', '.join(f's.{c}' for c in columns.values())}"
        f" FROM packages p LEFT JOIN study_index s ON s.package = p.id WHERE {_PACKAGES}"
        " ORDER BY p.id",
        (uid, origin.digest),
    ).fetchall()
    found_first = sorted(rows, key=lambda row: row["id"] != package)
    values = {
        k: next((row[i] for row in found_first if row[i]), "") for i, k in enumerate(columns, 2)
    }
    modalities = {word for row in rows for word in (row["modalities"] or "").split()}
    values["ModalitiesInStudy"] = " ".join(sorted(modalities))
    if len(patients.of_study(db, uid, origin)) > 1:
        # Values from another patient's package must not be mixed in.
        mine = next((row for row in rows if row["id"] == package), None)
        values |= {k: (mine[i] or "") if mine else "" for i, k in enumerate(columns, 2)}
        values |= _values_of(
            _patient(db, uid, origin, package, query)
            if query.level is Level.STUDY
            else Patient()  # of which of them a series is, is not known
        )
    else:
        values |= _values_of(_patient(db, uid, origin, package, query))
    values["StudyInstanceUID"] = uid
    if len(rows) == 1:
        sql = "SELECT COUNT(DISTINCT series_uid) FROM instances WHERE package = ?"
        series, images = db.execute(sql, (rows[0]["id"],)).fetchone()[0], rows[0]["instances"]
    else:
        counted = images_by_series(db, uid, origin)
        series, images = len(counted), sum(counted.values())
    values["NumberOfStudyRelatedSeries"] = str(series)
    values["NumberOfStudyRelatedInstances"] = str(images)
    return int(rows[0]["id"]) if rows else 0, values


def _patient(
    db: Db, uid: StudyInstanceUID, origin: FacilityId, package: int, query: Query
) -> Patient:
    """Return the patient of a study who was asked for, as one row says: several do not mix."""
    where, args = "1", list[object]()
    if asked := _asked_of_patient(query):
        where, args = asked.where, list(asked.args)
    row = db.execute(
        "SELECT x.name, x.patient_id, x.birth_date, x.sex FROM packages p"
        f" JOIN patients x ON x.package = p.id WHERE {_PACKAGES} AND {where}"
        " ORDER BY p.id != ?, x.id LIMIT 1",
        (uid, origin.digest, *args, package),
    ).fetchone()
    return Patient(*row) if row else Patient()


def _values_of(patient: Patient) -> dict[str, str]:
    return {
        "PatientName": patient.name,
        "PatientID": patient.patient_id,
        "PatientBirthDate": patient.birth_date,
        "PatientSex": patient.sex,
    }


# -- series and instances -------------------------------------------------------------------------

# Instances without older versions; as `node.domain.versions` decides it.
_CURRENT = (
    "WITH mine AS (SELECT i.{} FROM instances i JOIN packages p ON p.id = i.package"
    f" WHERE {_PACKAGES} {{}}),"
    " per AS (SELECT series_uid, sop_instance_uid, package, COUNT(DISTINCT digest) AS images"
    " FROM mine GROUP BY 1, 2, 3),"
    " names AS (SELECT series_uid, sop_instance_uid, MAX(package) AS newest, MAX(images) AS most"
    " FROM per GROUP BY 1, 2),"
    " current AS (SELECT m.* FROM mine m JOIN names n ON n.series_uid = m.series_uid"
    " AND n.sop_instance_uid = m.sop_instance_uid WHERE m.package = n.newest OR n.most > 1)"
)


def _current(columns: Sequence[str] = (), wanted: str = "") -> str:
    """Return the beginning of a statement on a study's instances without older versions.

    Args:
        columns: What it needs beside series, name, package and digest.
        wanted: A condition on instances `i`: on their series and names only, by which versions are
            told apart.
    """
    return _CURRENT.format(
        ", i.".join(("series_uid", "sop_instance_uid", "package", "digest", *columns)), wanted
    )


def images_by_series(db: Db, uid: str, origin: FacilityId) -> dict[str, int]:
    """Return how many images each series of a study has, without older versions."""
    rows = db.execute(
        f"{_current()} SELECT series_uid, COUNT(DISTINCT digest) FROM current GROUP BY series_uid",
        (uid, origin.digest),
    )
    return {str(series): int(images) for series, images in rows}


def series_of(db: Db, uid: str, origin: FacilityId) -> list[dict[str, str]]:
    """Return the series of one origin's packages of a study, by their number."""
    columns = package_rows.SERIES_COLUMNS
    chosen = ", ".join(f"MAX(COALESCE(x.{column}, ''))" for column in columns.values())
    rows = db.execute(
        f"SELECT i.series_uid, {chosen} FROM packages p"
        " JOIN instances i ON i.package = p.id"
        " LEFT JOIN series_index x ON x.package = p.id AND x.series_uid = i.series_uid"
        f" WHERE {_PACKAGES} GROUP BY i.series_uid",
        (uid, origin.digest),
    ).fetchall()
    images = images_by_series(db, uid, origin)
    found = [
        {
            "SeriesInstanceUID": str(series),
            **dict(zip(columns, values, strict=True)),
            "NumberOfSeriesRelatedInstances": str(images.get(series, 0)),
        }
        for series, *values in rows
    ]
    return sorted(found, key=lambda s: (_number(s["SeriesNumber"]), s["SeriesInstanceUID"]))


def images_of(
    db: Db, uid: str, origin: FacilityId, query: Query
) -> dict[str, list[dict[str, str]]]:
    """Return a study's instances without older versions, by series, in order of their number.

    Images of one SOP Instance UID that differ are each in it, as `node.domain.versions` says. Those
    that a UID of the query leaves out are not read.
    """
    said = tuple(package_rows.IMAGE_COLUMNS.values())
    columns = ("sop_class_uid", "transfer_syntax_uid", *said)
    wanted, args = "", list[str]()
    for one in query.criteria:
        if one.attribute.keyword in _IMAGE_UIDS:
            column = _IMAGE_UIDS[one.attribute.keyword]
            wanted += f" AND i.{column} IN ({marks(one.values)})"
            args += one.values
    rows = db.execute(
        f"{_current(columns, wanted)} SELECT series_uid, sop_instance_uid, {', '.join(columns)}"
        " FROM current GROUP BY series_uid, sop_instance_uid, digest"
        " ORDER BY instance_number IS NULL, instance_number, sop_instance_uid, digest",
        (uid, origin.digest, *args),
    )
    found: dict[str, list[dict[str, str]]] = {}
    for series, sop_instance, sop_class, syntax, *numbers in rows:
        image = {
            "SOPInstanceUID": sop_instance,
            "SOPClassUID": sop_class,
            "AvailableTransferSyntaxUID": syntax,
        }
        for keyword, number in zip(IMAGE_KEYWORDS, numbers, strict=True):
            image[keyword] = "" if number is None else str(number)
        found.setdefault(str(series), []).append(image)
    return found


def _number(text: str) -> tuple[int, str]:
    """Return a Series Number (an IS value) as it sorts: 2 before 10."""
    digits = text.strip().lstrip("+")
    return (int(digits) if digits.isascii() and digits.isdigit() else 2**31, text)
