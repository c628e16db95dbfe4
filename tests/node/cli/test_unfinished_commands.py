"""`emix imports`: what is unfinished, and how a person resumes or discards it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from emix.admin.v1 import admin_pb2 as pb

from node.terminal.output import show_time
from tests.support.answering import AnsweringNode, widest

LIST, DISCARD = "StudyService.ListImports", "StudyService.DiscardImport"
IMPORT = "StudyService.Import"
DAY = 1_790_000_000
HANS = pb.Patient(name="Müller^Hans", patient_id="P-77", birth_date="19500102")
JANE = pb.Patient(name="Roe^Jane")


def unfinished(number: int = 3, **changes: object) -> pb.UnfinishedImport:
    facts: dict[str, object] = {
        "number": number,
        "sources": ["/media/cdrom"],
        "begun_seconds": DAY,
        "problem": "the node was stopped",
        "studies": [pb.PartialStudy(patients=[HANS]), pb.PartialStudy(patients=[HANS, JANE])],
        "instances": 120,
        "sealed_bytes": 60_000_000,
        **changes,
    }
    return pb.UnfinishedImport(**facts)  # type: ignore[arg-type]


def imported(**counts: int) -> list[pb.ImportResponse]:
    return [pb.ImportResponse(summary=pb.ImportSummary(**counts))]


@pytest.fixture
def node(tmp_path: Path) -> AnsweringNode:
    return AnsweringNode(
        tmp_path / "home",
        {
            LIST: pb.ListImportsResponse(imports=[unfinished()]),
            DISCARD: pb.DiscardImportResponse(packages=2),
        },
    )


def test_list_shows_what_is_stored_of_an_import_and_why_it_stopped(node: AnsweringNode) -> None:
    running = unfinished(4, is_running=True, problem="", studies=[pb.PartialStudy(patients=[JANE])])
    node.answers[LIST] = pb.ListImportsResponse(imports=[unfinished(), running])
    first, second = node.run("imports").stdout.splitlines()[1:]
    for cell in ("i3", show_time(DAY), "unfinished", "Müller^Hans (and 1 more)", "120", "60.0 MB"):
        assert cell in first
    assert first.endswith("/media/cdrom  the node was stopped")
    for cell in ("i4", "running", " Roe^Jane "):
        assert cell in second
    assert "unfinished" not in second


def test_patient_without_a_name_is_shown_by_the_id(node: AnsweringNode) -> None:
    nameless = unfinished(studies=[pb.PartialStudy(patients=[pb.Patient(patient_id="P-78")])])
    node.answers[LIST] = pb.ListImportsResponse(imports=[nameless])
    assert "P-78" in node.run("imports").stdout


def test_list_fits_80_columns_with_the_reason_below(node: AnsweringNode) -> None:
    long = unfinished(
        sources=["/srv/incoming/2026-11-24/from-the-emergency-department/disc-0001"],
        problem="the disc has a file that cannot be read any more " * 3,
        studies=[pb.PartialStudy(patients=[pb.Patient(name="Cholmondeley^" * 5)])],
    )
    node.answers[LIST] = pb.ListImportsResponse(imports=[long])
    shown = node.run("imports", width=80).stdout
    assert widest(shown) <= 80
    _, row, below, *_ = shown.splitlines()
    assert "Cholmonde" in row
    assert "disc-0001"[-4:] in row
    assert below.startswith("    why: the disc has a file")


def test_nothing_unfinished_says_so(node: AnsweringNode) -> None:
    node.answers[LIST] = pb.ListImportsResponse()
    assert node.run("imports").stdout == "Every import is finished.\n"


def test_list_in_json_has_every_patient(node: AnsweringNode) -> None:
    (shown,) = node.json("imports")["imports"]
    assert (shown["number"], shown["is_running"], shown["instances"]) == (3, False, 120)
    assert [p["name"] for p in shown["studies"][1]["patients"]] == ["Müller^Hans", "Roe^Jane"]


@pytest.mark.parametrize("number", ["i3", "3", "I3"])
def test_discarding_shows_the_patients_and_happens_once_it_is_confirmed(
    node: AnsweringNode, number: str
) -> None:
    studies = [pb.PartialStudy(patients=[patient]) for patient in (HANS, JANE)]
    node.answers[LIST] = pb.ListImportsResponse(imports=[unfinished(studies=studies)])
    done = node.run("imports", "discard", number, typed="y\n")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "i3, /media/cdrom: 120 instances of",
        "  Müller^Hans  P-77  born 1950-01-02",
        "  Roe^Jane",
        "Discarded import i3: 2 packages.",
    ]
    assert "Delete them from this node? [y/N]" in done.stderr
    assert node.requests(DISCARD) == [pb.DiscardImportRequest(number=3)]


def test_declined_discarding_deletes_nothing(node: AnsweringNode) -> None:
    done = node.run("imports", "discard", "i3", typed="n\n")
    assert (done.exit_code, "nothing was done" in done.stderr) == (1, True)
    assert DISCARD not in node.names


def test_discarding_without_a_terminal_needs_yes(node: AnsweringNode) -> None:
    done = node.run("imports", "discard", "i3")
    assert (done.exit_code, "add --yes" in done.stderr) == (2, True)
    assert node.error("imports", "discard", "i3")["exit_status"] == 2
    assert DISCARD not in node.names
    assert node.json("imports", "discard", "i3", "--yes") == {"packages": 2}
    assert node.requests(DISCARD) == [pb.DiscardImportRequest(number=3)]


@pytest.mark.parametrize("command", [("resume", "i9"), ("discard", "i9")])
def test_import_that_is_not_unfinished_leads_to_the_list(
    node: AnsweringNode, command: tuple[str, ...]
) -> None:
    done = node.run("imports", *command, typed="y\n")
    assert done.exit_code == 4
    assert "no import i9 is unfinished; `emix imports` lists those that are" in done.stderr
    assert node.names == [LIST]


@pytest.mark.parametrize("number", ["s3", "i", "-3", "³", "1.2.3", "9" * 19])
def test_what_cannot_be_the_number_of_an_import_is_not_sent(
    node: AnsweringNode, number: str
) -> None:
    done = node.run("imports", "discard", "--yes", "--", number)
    assert (done.exit_code, node.sent) == (2, [])
    assert "is not the number of an import, such as i3" in done.stderr


def finishing(node: AnsweringNode, left: int = 0) -> None:
    """Have the import be finished by its resuming, or keep so many instances."""

    def listed(_: object) -> pb.ListImportsResponse:
        is_resumed = IMPORT in node.names
        if is_resumed and not left:
            return pb.ListImportsResponse()
        return pb.ListImportsResponse(imports=[unfinished(instances=left), unfinished(4)])

    node.answers[LIST] = listed


def test_import_is_resumed_from_where_it_was_begun(node: AnsweringNode, tmp_path: Path) -> None:
    disc = tmp_path / "disc"
    disc.mkdir()
    node.answers[LIST] = pb.ListImportsResponse(imports=[unfinished(sources=[str(disc)])])
    node.answers[IMPORT] = imported(carried=5, known=120)
    node.run("imports", "resume", "i3")
    (request,) = node.requests(IMPORT)
    assert request.paths == pb.ImportPaths(paths=[str(disc)], resumes=3)


def test_import_is_resumed_from_other_paths_if_the_files_have_moved(
    node: AnsweringNode, tmp_path: Path
) -> None:
    finishing(node)
    node.answers[IMPORT] = imported(carried=5, known=120)
    done = node.run("imports", "resume", "i3", str(tmp_path))
    assert done.exit_code == 0
    (request,) = node.requests(IMPORT)
    assert request.paths == pb.ImportPaths(paths=[str(tmp_path)], resumes=3)
    assert "5 instances imported" in done.stdout
    assert "is not finished" not in done.stdout


def test_resumed_import_of_other_files_is_not_finished_and_says_so(
    node: AnsweringNode, tmp_path: Path
) -> None:
    finishing(node, left=7)
    node.answers[IMPORT] = imported(carried=5)
    done = node.run("imports", "resume", "i3", str(tmp_path))
    assert done.exit_code == 1
    assert done.stdout.splitlines()[-1] == (
        "i3 is not finished: 7 instances stored before are not in these paths. Run"
        " `emix imports resume i3 PATHS` with the original paths, or `discard` it."
    )
    shown = node.json("imports", "resume", "i3", str(tmp_path), status=1)
    assert (shown["instances_left"], shown["summary"]["carried"]) == (7, 5)


def test_resumed_import_that_held_a_file_fails(node: AnsweringNode, tmp_path: Path) -> None:
    finishing(node)
    node.answers[IMPORT] = imported(carried=5, held=1)
    shown = node.json("imports", "resume", "i3", str(tmp_path), status=1)
    assert (shown["instances_left"], shown["summary"]["held"]) == (0, 1)


def test_files_are_sent_with_the_request_if_streaming_is_asked_for(
    node: AnsweringNode, tmp_path: Path
) -> None:
    def read(requests: Iterator[pb.ImportRequest]) -> list[pb.ImportResponse]:
        assert len(list(requests)) > 1
        return imported(carried=1)

    finishing(node)
    file = tmp_path / "IM1"
    file.write_bytes(b"not really an image")
    node.answers[IMPORT] = read
    assert node.run("imports", "resume", "i3", str(file), "--stream").exit_code == 0
    first, *others = node.requests(IMPORT)
    assert (first.file.resumes, first.file.sources) == (3, [str(file)])
    assert b"".join(request.data for request in others) == b"not really an image"
