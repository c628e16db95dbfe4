"""Which study a person means: by UID, number here, accession number, or search words.

Messages name studies by number and never repeat the search text, which may be a patient's name.
"""

import re
from collections.abc import Sequence

from node.domain.display_text import words_to_find
from node.domain.ids import FacilityId
from node.domain.manifest import StudyInstanceUID
from node.domain.query import Query
from node.domain.studies import Chosen, Means
from node.domain.uids import MAX_UID
from node.errors import Conflict, NotFound
from node.sql.database import Db
from node.store.catalogue import matching_studies
from node.store.origins import choose_origin

_NUMBER = re.compile(r"[sS]([0-9]{1,18})")
_UID = re.compile(rf"[0-9.]{{1,{MAX_UID}}}")
_SHORT_UID = re.compile(r"([0-9.]{1,64})(?:…|\.\.\.)([0-9.]{1,64})")
_MOST_NAMED = 10


def choose_study(db: Db, text: str) -> Chosen:
    """Return the one study that a person means.

    In this order: its number, as `s12`; a UID, the beginning of one, or both ends as a table shows
    them; an accession number; words, as in a search, that find one study only.

    Raises:
        NotFound: none is meant.
        Conflict: several are; the message names them by number.
    """
    wanted = text.strip()
    if number := _NUMBER.fullmatch(wanted):
        return _numbered(db, int(number[1]))
    uids = _by_uid(db, wanted)
    if wanted in uids:
        return Chosen(StudyInstanceUID(wanted), Means.UID)
    accession = _by_accession(db, wanted)
    if len(uids) == 1 and not accession - uids:
        return Chosen(StudyInstanceUID(uids.pop()), Means.UID)
    if len(accession) == 1 and not uids - accession:
        return Chosen(StudyInstanceUID(accession.pop()), Means.ACCESSION)
    if several := uids | accession:
        raise _several(db, several)
    found = set() if "." in wanted and _UID.fullmatch(wanted) else _by_words(db, wanted)
    if not found:
        raise NotFound(f"no study matches; {_where_else(db)}")
    if len(found) > 1:
        raise _several(db, found)
    return Chosen(StudyInstanceUID(found.pop()), Means.WORDS)


def choose(
    db: Db, text: str, origin: str, me: FacilityId, *, is_equal_one: bool = True
) -> tuple[StudyInstanceUID, FacilityId]:
    """Return the study that a person means, and whose packages of it.

    Raises:
        NotFound, Conflict: see `choose_study` and `origins.choose_origin`.
    """
    chosen = choose_study(db, text)
    wanted = origin or (str(chosen.origin) if chosen.origin else "")
    return chosen.study_uid, choose_origin(
        db, chosen.study_uid, wanted, me, is_equal_one=is_equal_one
    )


def uid_or_beginning(db: Db, text: str) -> tuple[str, bool]:
    """Return a study's UID or the beginning of one, and whether it is whole; for past records.

    A deleted study is known by its UID only. So digits and full stops are read as the beginning of
    a UID, unless they are the accession number of a study that is here.

    Raises:
        NotFound, Conflict: see `choose_study`.
    """
    wanted = text.strip()
    if _UID.fullmatch(wanted) and not _by_accession(db, wanted):
        return wanted, False
    return choose_study(db, wanted).study_uid, True


def _where_else(db: Db) -> str:
    """Return which commands list what is here: studies, unfinished imports, held instances."""
    is_partial = db.execute("SELECT 1 FROM imports").fetchone() is not None
    is_held = db.execute("SELECT 1 FROM packages WHERE state = 'held'").fetchone() is not None
    more = ", `emix imports` unfinished imports" if is_partial else ""
    held = ", `emix held` held instances" if is_held else ""
    return f"`emix studies` lists all studies{more}{held}"


def _numbered(db: Db, number: int) -> Chosen:
    row = db.execute(
        "SELECT study_uid, origin FROM packages WHERE id = ? AND state = 'closed'", (number,)
    ).fetchone()
    if row is None:
        raise NotFound(f"there is no study s{number}; `emix studies` lists all studies")
    return Chosen(StudyInstanceUID(row[0]), Means.NUMBER, FacilityId(row[1]))


def _by_uid(db: Db, wanted: str) -> set[str]:
    ends = _SHORT_UID.fullmatch(wanted)
    start, end = (ends[1], ends[2]) if ends else (wanted, "")
    if not _UID.fullmatch(start):
        return set()
    return _uids(
        db,
        # After all that go on with a digit or a full stop comes a colon.
        "p.study_uid >= ? AND p.study_uid < ? || ':' AND p.study_uid LIKE '%' || ?",
        (start, start, end),
        exact=wanted,
    )


def _by_accession(db: Db, wanted: str) -> set[str]:
    where = (
        "p.id IN (SELECT package FROM study_index WHERE accession_number != ''"
        " AND accession_number = ? COLLATE NOCASE)"
    )
    return _uids(db, where, (wanted,))


def _by_words(db: Db, wanted: str) -> set[str]:
    if not words_to_find(wanted):
        return set()
    found = matching_studies(db, Query(words=words_to_find(wanted)))
    uids: set[str] = set()
    for uid, _, _ in found:
        uids.add(uid)
        if len(uids) > _MOST_NAMED:
            break
    return uids


def _uids(db: Db, where: str, args: Sequence[object], *, exact: str = "") -> set[str]:
    """Return studies that match a condition written by us; enough of them to name."""
    rows = db.execute(
        "SELECT DISTINCT p.study_uid FROM packages p LEFT JOIN study_index s ON s.package = p.id"
        f" WHERE p.state = 'closed' AND {where} ORDER BY p.study_uid != ?, p.study_uid LIMIT ?",
        (*args, exact, _MOST_NAMED + 1),
    )
    return {str(row[0]) for row in rows}


def _several(db: Db, uids: set[str]) -> Conflict:
    numbers = sorted(
        row[0]
        for uid in uids
        for row in db.execute(
            "SELECT MIN(id) FROM packages WHERE state = 'closed' AND study_uid = ?", (uid,)
        )
    )
    named = ", ".join(f"s{number}" for number in numbers[:_MOST_NAMED])
    more = " and more" if len(numbers) > _MOST_NAMED else ""
    return Conflict(f"several studies match: {named}{more}; give the number of one")
