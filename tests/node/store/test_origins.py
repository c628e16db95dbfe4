"""Whose packages of a study are meant: never two facilities' at once, and never by a guess."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from node.crypto.digests import digest
from node.domain.ids import LEAST_CHARACTERS, FacilityId, PackageId
from node.domain.manifest import (
    AttachmentEntry,
    InstanceEntry,
    SeriesInstanceUID,
    SOPClassUID,
    SOPInstanceUID,
    StudyInstanceUID,
    TransferSyntaxUID,
)
from node.domain.packages import PackageState
from node.errors import NotFound, SeveralOrigins
from node.sql.database import Db
from node.store import package_rows
from node.store.origins import choose_origin
from tests.support.stores import new_rows

ME, ONE, TWO = (FacilityId(digest(name)) for name in (b"me", b"one", b"two"))
STUDY = StudyInstanceUID("1.2")


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Db]:
    with new_rows(tmp_path) as db:
        yield db


def add(
    db: Db,
    origin: FacilityId,
    *contents: bytes,
    attached: tuple[bytes, ...] = (),
    state: PackageState = PackageState.CLOSED,
    study: str = STUDY,
) -> None:
    """Keep a package of an origin, with instances of these contents."""
    number = db.execute("SELECT COUNT(*) FROM packages").fetchone()[0]
    row = package_rows.add_package(
        db,
        package_id=PackageId(digest(bytes([number]))),
        origin=origin,
        study_uid=study,
        state=state,
        epoch=1,
        wrapped_key=b"",
    )
    uids = SOPClassUID("1"), SOPInstanceUID("2"), SeriesInstanceUID("3"), TransferSyntaxUID("4")
    instances = [InstanceEntry(*uids, 1, digest(content), ()) for content in contents]
    package_rows.add_instances(db, row, 0, instances)
    files = [AttachmentEntry("text/plain", 1, digest(content), ()) for content in attached]
    package_rows.add_attachments(db, row, 0, files)


def chosen(db: Db, wanted: str = "", *, is_equal_one: bool = True) -> FacilityId:
    return choose_origin(db, STUDY, wanted, ME, is_equal_one=is_equal_one)


def test_only_origin_is_meant(db: Db) -> None:
    add(db, ONE, b"a")
    add(db, ONE, b"b")
    add(db, TWO, b"a", state=PackageState.ARRIVING)
    add(db, TWO, b"a", study="1.3")
    assert chosen(db) == chosen(db, is_equal_one=False) == ONE


def test_ours_is_meant_where_it_has_every_image_of_the_others(db: Db) -> None:
    add(db, ONE, b"a")
    add(db, TWO, b"b")
    add(db, ME, b"a", b"b")
    add(db, ME, b"c")
    add(db, ONE, b"d", state=PackageState.ARRIVING)
    assert chosen(db) == ME
    with pytest.raises(SeveralOrigins):
        chosen(db, is_equal_one=False)
    add(db, TWO, b"d")
    with pytest.raises(SeveralOrigins):
        chosen(db)


def test_first_of_those_with_the_same_images_is_meant(db: Db) -> None:
    add(db, TWO, b"a")
    add(db, ONE, b"a", b"b")
    add(db, TWO, b"b")
    assert chosen(db) == TWO
    add(db, TWO, b"c")
    with pytest.raises(SeveralOrigins):
        chosen(db)  # what another facility adds may be anything


def test_report_is_content_as_images_are(db: Db) -> None:
    add(db, ME, b"a")
    add(db, ONE, b"a", attached=(b"report",))
    with pytest.raises(SeveralOrigins):
        chosen(db)
    add(db, ME, attached=(b"report",))
    assert chosen(db) == ME


def test_person_is_told_how_much_is_of_whom(db: Db) -> None:
    add(db, ONE, b"a", b"b", b"c")
    add(db, ME, b"a")
    with pytest.raises(SeveralOrigins) as caught:
        chosen(db)
    said = str(caught.value)
    assert "2 facilities" in said
    assert f"{str(ONE)[:23]} (3 instances), own (1 instances)" in said
    assert chosen(db, str(ONE)[:23]) == ONE, "what is shown names it"


@pytest.mark.parametrize(
    "wanted",
    [
        str(ONE),
        str(ONE)[:19],
        str(ONE).lower(),
        f" {str(ONE).replace('-', ' ')} ",
        str(ONE).replace("O", "0").replace("I", "1").replace("-", "\u2013"),
    ],
    ids=["whole", "beginning", "lower case", "with blanks", "as typed"],
)
def test_origin_is_named_as_people_write_it(db: Db, wanted: str) -> None:
    for origin in (ME, ONE, TWO):
        add(db, origin, b"a")
    assert chosen(db, wanted) == ONE
    assert chosen(db, "own") == chosen(db, "OWN ") == ME


def test_too_short_a_beginning_names_nobody(db: Db) -> None:
    add(db, ONE, b"a")
    plain = str(ONE).replace("-", "")
    assert chosen(db, plain[:LEAST_CHARACTERS]) == ONE
    with pytest.raises(NotFound, match="16 characters"):
        chosen(db, plain[: LEAST_CHARACTERS - 1])


def test_whose_packages_are_not_here_is_not_found(db: Db) -> None:
    add(db, ONE, b"a")
    for wanted in (str(TWO), "own"):
        with pytest.raises(NotFound, match="sealed no package of the study"):
            chosen(db, wanted)
    with pytest.raises(NotFound, match="the study was deleted"):
        choose_origin(db, StudyInstanceUID("9"), "", ME)


def test_beginning_of_two_names_neither(db: Db) -> None:
    twins = [FacilityId(ONE.digest[:20] + bytes([n]) * 12) for n in range(2)]
    for twin in twins:
        add(db, twin, b"a")
    with pytest.raises(SeveralOrigins, match="give more"):
        chosen(db, str(ONE)[:23])
    assert chosen(db, str(twins[1])) == twins[1]
