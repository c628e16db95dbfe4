"""Two patients under one Study Instance UID: flagged, both found, asked about before a send."""

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from node.crypto.digests import digest
from node.dicom.examiner import open_examiner
from node.domain.display_text import MOST_FINDABLE
from node.domain.ids import FacilityId
from node.domain.transfers import Priority
from node.domain.verdicts import Examined, Verdict
from node.errors import SeveralPatients
from node.exchange.transfer.transfers import SendOrder, Transfers
from node.store.context import StoreContext
from node.store.imports import ImportStore
from node.store.studies import StudyStore
from node.store.transfers import TransferStore
from tests.node.store.test_exporting import bring
from tests.node.store.test_import_resumes import Cut, CutImportStore, make_store, run_import
from tests.support.actors import actor
from tests.support.catalogue import listed
from tests.support.dicom_files import encode, make_dataset, study_uid


@pytest.fixture
def context(tmp_path: Path) -> Iterator[StoreContext]:
    context = make_store(tmp_path / "home")
    yield context
    context.close()


def of_patient(instance: int, name: str, patient_id: str) -> bytes:
    ds = make_dataset(1, instance, series=instance)
    ds.PatientName, ds.PatientID = name, patient_id
    return encode(ds)


CARTER, DAVIS = of_patient(1, "CARTER^CARL", "PC1"), of_patient(2, "DAVIS^DORA", "PD2")
ANOTHER = "another patient than other instances of its Study Instance UID"


@pytest.mark.parametrize("is_one_import", [True, False], ids=["one import", "two imports"])
async def test_second_patient_is_flagged_and_both_are_found_and_shown(
    context: StoreContext, tmp_path: Path, *, is_one_import: bool
) -> None:
    if is_one_import:
        summary, said = await bring(context, tmp_path / "s", {"1": CARTER, "2": DAVIS})
    else:
        await bring(context, tmp_path / "1", {"1": CARTER})
        summary, said = await bring(context, tmp_path / "2", {"2": DAVIS})
    assert (said, summary.flagged) == ([ANOTHER], 1)
    studies = StudyStore(context)
    for words in ("carter", "davis dora", "PC1", "pd2"):
        assert [uid for uid, _ in await listed(context, words)] == [study_uid(1)]
    (found,) = await studies.sources(await listed(context))
    assert [(p.name, p.patient_id) for p in found.patients] == [
        ("CARTER^CARL", "PC1"),
        ("DAVIS^DORA", "PD2"),
    ]


async def test_second_patient_is_flagged_by_an_import_that_goes_on(
    context: StoreContext, tmp_path: Path
) -> None:
    """What is known of it already is not looked at again."""
    folder = tmp_path / "s"
    folder.mkdir()
    (folder / "1").write_bytes(CARTER)
    async with open_examiner(parsers=1) as examiner:
        with suppress(Cut):
            await run_import(CutImportStore(context), examiner, folder)
        (folder / "2").write_bytes(DAVIS)
        summary = await run_import(ImportStore(context), examiner, folder)
    assert (summary.known, summary.carried, summary.flagged) == (1, 1, 1)


async def test_name_and_id_of_different_patients_do_not_mix(
    context: StoreContext, tmp_path: Path
) -> None:
    nameless = of_patient(1, "CARTER^CARL", "")
    await bring(context, tmp_path / "s", {"1": nameless, "2": DAVIS})
    studies = StudyStore(context)
    (found,) = await studies.sources(await listed(context))
    assert (found.index["patient_name"], found.index["patient_id"]) == ("CARTER^CARL", "")


async def test_one_patient_written_otherwise_is_no_alarm(
    context: StoreContext, tmp_path: Path
) -> None:
    files = {"1": CARTER, "2": of_patient(2, "Carter^Carl^M", "PC1"), "3": of_patient(3, "", "PC1")}
    summary, said = await bring(context, tmp_path / "s", files)
    assert (said, summary.flagged) == ([], 0)


async def test_many_patients_with_costly_words_cost_little(context: StoreContext) -> None:
    """A peer chooses the words: one such character becomes eighteen where it is folded."""

    def index(n: int) -> dict[str, str]:
        words = ("PatientName", "PatientID", "PatientBirthDate")
        return {word: f"{word}{n}".ljust(256, "\ufdfa") for word in words}

    begun = time.process_time()
    async with trio.open_nursery() as nursery:
        writer = await ImportStore(context).open_package("1.2", nursery)
        for n in range(60):
            found = Examined(Verdict.CARRY, (), "1.2", "1.2.1", f"1.2.1.{n}", index=index(n))
            await writer.add(found, digest(bytes([n])), bytes([n]))
        await writer.flush()
    assert time.process_time() - begun < 3
    count, searched = context.database.read_sync(
        lambda db: db.execute(
            "SELECT (SELECT COUNT(*) FROM patients), LENGTH(words) FROM study_words"
        ).fetchone()
    )
    assert (count, searched <= MOST_FINDABLE) == (60, True)


async def test_two_patients_are_asked_about_before_they_are_sent(
    context: StoreContext, tmp_path: Path
) -> None:
    await bring(context, tmp_path / "1", {"1": CARTER})
    await bring(context, tmp_path / "2", {"2": DAVIS})
    unused = cast("Any", None)
    book = TransferStore(context)
    transfers = Transfers(
        signer=context.signer,
        book=book,
        sender=unused,
        receiver=unused,
        links=unused,
        offer_seconds=3600,
    )

    def order(*, is_meant: bool) -> SendOrder:
        return SendOrder(
            study=study_uid(1),
            receiver=FacilityId(bytes(32)),
            seal_key=context.secrets.seal_keys[0].public,
            recipient="",
            note="",
            priority=Priority.ROUTINE,
            actor=actor("test"),
            has_several_patients=is_meant,
        )

    with pytest.raises(SeveralPatients, match="2 patients"):
        await transfers.send(order(is_meant=False))
    assert len((await transfers.send(order(is_meant=True))).added) == 2
