"""Choosing the origin of a study's packages: origins are never mixed silently.

A peer can seal a study under the same UIDs as ours, with other pixels and another patient. So an
export or a send takes the packages of one origin. If the origins differ, a person must name one.
"""

from node.domain.ids import LEAST_CHARACTERS, FacilityId
from node.domain.manifest import StudyInstanceUID
from node.domain.names import OWN, id_letters
from node.errors import NotFound, SeveralOrigins
from node.sql.database import Db


def choose_origin(
    db: Db, study_uid: StudyInstanceUID, wanted: str, me: FacilityId, *, is_equal_one: bool = True
) -> FacilityId:
    """Return the origin of a study's closed packages that a person means.

    If no origin is named, it is the only one. With `is_equal_one` it may also be this facility, if
    it has every image that the others have, or the first of several origins with equal images.

    Raises:
        NotFound: the named origin has no packages of the study here.
        SeveralOrigins: a person must name an origin; the message counts their instances.
    """
    origins = _origins(db, study_uid)
    if wanted:
        return _named(origins, wanted, me)
    if len(origins) == 1:
        return origins[0]
    contents = {origin: _digests(db, study_uid, origin) for origin in origins}
    first = me if me in contents else next(iter(contents))
    others = [found for origin, found in contents.items() if origin != first]
    # A superset of another facility's is no reason to prefer it: what it adds may be anything.
    if all(o <= contents[first] if first == me else o == contents[first] for o in others) and (
        is_equal_one or not others
    ):
        return first
    counts = ", ".join(
        f"{OWN if origin == me else _beginning(origin)} ({len(found)} instances)"
        for origin, found in contents.items()
    )
    raise SeveralOrigins(
        f"{len(contents)} facilities sealed this study, each its own packages: {counts};"
        " choose one with --origin"
    )


def _origins(db: Db, study_uid: StudyInstanceUID) -> list[FacilityId]:
    """Return whose packages of a study are here, in the order in which they came."""
    rows = db.execute(
        "SELECT origin FROM packages WHERE state = 'closed' AND study_uid = ?"
        " GROUP BY origin ORDER BY MIN(id)",
        (study_uid,),
    ).fetchall()
    if not rows:
        raise NotFound("the study was deleted; `emix studies` lists all studies")
    return [FacilityId(row[0]) for row in rows]


def _digests(db: Db, study_uid: StudyInstanceUID, origin: FacilityId) -> set[bytes]:
    """Return the digests of an origin's instances of a study, and of what is attached to it."""
    inside = "p.state = 'closed' AND p.study_uid = ?1 AND p.origin = ?2"
    rows = db.execute(
        f"SELECT i.digest FROM packages p JOIN instances i ON i.package = p.id WHERE {inside}"
        f" UNION SELECT a.digest FROM packages p JOIN attachments a ON a.package = p.id"
        f" WHERE {inside}",
        (study_uid, origin.digest),
    )
    return {row[0] for row in rows}


def _named(origins: list[FacilityId], wanted: str, me: FacilityId) -> FacilityId:
    plain = id_letters(wanted)
    if plain == OWN.upper():
        found = [me] if me in origins else []
    elif len(plain) < LEAST_CHARACTERS:
        raise NotFound(
            f"an origin is {OWN!r}, or at least {LEAST_CHARACTERS} characters of a Facility ID;"
            " `emix study` shows the origins"
        )
    else:
        found = [o for o in origins if str(o).replace("-", "").startswith(plain)]
    if not found:
        raise NotFound("that facility sealed no package of the study; see `emix study`")
    if len(found) > 1:
        raise SeveralOrigins("several origins match; give more of the Facility ID")
    return found[0]


def _beginning(origin: FacilityId) -> str:
    """Return as much of an ID as names it: whole groups."""
    return str(origin)[: 3 * 8 - 1]
