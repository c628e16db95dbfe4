"""`emix import`: what is sent, what of the findings is shown, and how an import ends."""

import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from emix.admin.v1 import admin_pb2 as pb

from node.errors import StoreFull, UsageError
from tests.support.answering import AnsweringNode

IMPORT, LIST = "StudyService.Import", "StudyService.ListImports"
CANCEL = pb.ImportRequest(cancel=pb.ImportCancel())
UNREADABLE = pb.ImportResponse(unreadable=pb.ImportUnreadable(paths=["/media/cdrom"]))
WHOLE = pb.ImportSummary(carried=2, known=1, plaintext_bytes=1_500_000, sealed_bytes=900_000)


def finding(verdict: str, label: str = "IM1", *reasons: str) -> pb.ImportResponse:
    return pb.ImportResponse(
        finding=pb.ImportFinding(label=label, verdict=verdict, reasons=reasons)
    )


def ended(
    summary: pb.ImportSummary = WHOLE, studies: Iterable[str] = ()
) -> list[pb.ImportResponse]:
    """Return the last events of an import."""
    return [
        pb.ImportResponse(progress=pb.ImportProgress(files_done=3, files_total=3)),
        pb.ImportResponse(studies=pb.ImportStudies(study_instance_uids=studies)),
        pb.ImportResponse(summary=summary),
    ]


@pytest.fixture
def node(tmp_path: Path) -> AnsweringNode:
    return AnsweringNode(tmp_path / "home", {IMPORT: ended(studies=["1.2.3"])})


@pytest.fixture
def disc(tmp_path: Path) -> Path:
    """A folder with two files, one larger than a piece that is sent."""
    folder = tmp_path / "disc"
    folder.mkdir()
    (folder / "IM1").write_bytes(b"image" * 300_000)
    (folder / "README").write_bytes(b"text")
    return folder


def paths_of(*paths: Path | str) -> pb.ImportRequest:
    return pb.ImportRequest(paths=pb.ImportPaths(paths=map(str, paths)))


def streamed(requests: Iterable[pb.ImportRequest]) -> dict[str, bytes]:
    """Return the files that a stream of requests has, by the last part of their names."""
    found: dict[str, bytes] = {}
    label = ""
    for request in requests:
        if request.HasField("file"):
            label = Path(request.file.label).name
            found[label] = b""
        elif request.HasField("data"):
            found[label] += request.data
    return found


def test_paths_are_named_whole_and_the_node_reads_them(
    node: AnsweringNode, disc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(disc)
    done = node.run("import", "IM1", str(disc))
    assert (done.exit_code, done.stderr) == (0, "")
    assert node.requests(IMPORT) == [paths_of(disc / "IM1", disc)]
    assert done.stdout.splitlines() == [
        "2 instances imported (1.5 MB, sealed 900.0 kB), 0 of them flagged; 1 known already,"
        " 0 held, 0 refused.",
        "  study 1.2.3",
    ]


@pytest.mark.parametrize("name", ["none", "IM1/x", "bad\0name"])
def test_path_that_is_not_there_ends_it_before_anything_is_sent(
    node: AnsweringNode, disc: Path, name: str
) -> None:
    done = node.run("import", str(disc / "IM1"), str(disc / name))
    assert done.exit_code == UsageError.exit_code
    assert "cannot be accessed (" in done.stderr
    assert "disc/" in done.stderr
    assert node.run("import").exit_code == UsageError.exit_code
    done = node.run("import", "")
    assert (done.exit_code, "an empty path" in done.stderr) == (UsageError.exit_code, True)
    assert node.sent == []


def test_findings_are_listed_with_reasons_and_what_is_no_dicom_is_counted(
    node: AnsweringNode, disc: Path
) -> None:
    summary = pb.ImportSummary(carried=1, flagged=1, held=1, refused=1, not_dicom=4, missing=1)
    node.answers[IMPORT] = [
        finding("flag", "/disc/IM1", "no Patient ID", "an odd UID"),
        finding("hold", "/disc/IM2", "an executable in the preamble"),
        finding("refuse", "/disc/IM3", "no SOP Instance UID"),
        finding("missing", "/disc/IM4", "the DICOMDIR names it"),
        finding("not-dicom", "/disc/viewer.exe", "no DICOM"),
        *ended(summary),
    ]
    done = node.run("import", str(disc))
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert lines[:4] == [
        " flagged  /disc/IM1: no Patient ID; an odd UID",
        "    held  /disc/IM2: an executable in the preamble",
        " refused  /disc/IM3: no SOP Instance UID",
        " missing  /disc/IM4: the DICOMDIR names it",
    ]
    assert "viewer.exe" not in done.stdout
    assert lines[5:] == [
        "1 files that a DICOMDIR references are missing.",
        "4 other files are not DICOM; --json lists them.",
    ]
    assert "1 held, 1 refused." in lines[4]


def test_import_in_json_lists_every_finding(node: AnsweringNode, disc: Path) -> None:
    node.answers[IMPORT] = [
        finding("not-dicom", "/disc/viewer.exe", "no DICOM"),
        pb.ImportResponse(studies=pb.ImportStudies(study_instance_uids=["1.1"])),
        *ended(studies=["1.2"]),
    ]
    shown = node.json("import", str(disc))
    assert shown["findings"] == [
        {"label": "/disc/viewer.exe", "verdict": "not-dicom", "reasons": ["no DICOM"]}
    ]
    assert shown["summary"]["study_instance_uids"] == ["1.1", "1.2"]
    assert (shown["summary"]["carried"], shown["summary"]["known"]) == (2, 1)


@pytest.mark.parametrize(
    ("summary", "status"),
    [
        (pb.ImportSummary(carried=1), 0),
        (pb.ImportSummary(known=1), 0),
        (pb.ImportSummary(carried=1, flagged=1, not_dicom=9), 0),
        (pb.ImportSummary(carried=1, held=1), 1),
        (pb.ImportSummary(carried=1, refused=1), 1),
        (pb.ImportSummary(carried=1, missing=1), 1),
        (pb.ImportSummary(not_dicom=9, directories=1), 1),
    ],
)
def test_exit_status_says_whether_all_of_it_was_carried(
    node: AnsweringNode, disc: Path, summary: pb.ImportSummary, status: int
) -> None:
    node.answers[IMPORT] = ended(summary)
    assert node.run("import", str(disc)).exit_code == status
    node.json("import", str(disc), status=status)


def test_import_that_found_nothing_names_where_it_looked(node: AnsweringNode, disc: Path) -> None:
    node.answers[IMPORT] = ended(pb.ImportSummary(not_dicom=2))
    done = node.run("import", str(disc))
    assert done.stderr == f"emix: no DICOM file was found in {disc}\n"
    many = [str(disc)] * 5
    assert node.run("import", *many).stderr.endswith(f"{disc}, {disc}, {disc} and 2 more\n")
    assert node.error("import", str(disc))["code"] == "not-found"
    node.answers[IMPORT] = ended(pb.ImportSummary(refused=2))
    assert node.run("import", str(disc)).stderr == ""


def test_twenty_missing_files_and_twenty_studies_are_named(node: AnsweringNode, disc: Path) -> None:
    missing = [finding("missing", f"/disc/IM{n}", "gone") for n in range(21)]
    uids = [f"1.2.{n}" for n in range(21)]
    node.answers[IMPORT] = [*missing, *ended(pb.ImportSummary(carried=1, missing=21), uids)]
    done = node.run("import", str(disc))
    assert done.stdout.count(" missing  /disc/") == 20
    assert "21 files that a DICOMDIR references are missing; --json lists them." in done.stdout
    assert done.stdout.count("\n  study 1.2.") == 20
    assert done.stdout.endswith("  and 1 more; see `emix studies`\n")
    assert len(node.json("import", str(disc), status=1)["findings"]) == 21


def test_files_that_the_node_cannot_read_are_streamed(node: AnsweringNode, disc: Path) -> None:
    def answers(requests: Iterator[pb.ImportRequest]) -> Iterator[pb.ImportResponse]:
        if next(requests).HasField("paths"):
            yield UNREADABLE
            return
        assert list(requests)
        yield from ended()

    node.answers[IMPORT] = answers
    done = node.run("import", str(disc))
    assert done.exit_code == 0, done.output
    named, *others = node.requests(IMPORT)
    assert named == paths_of(disc)
    assert streamed(others) == {"IM1": b"image" * 300_000, "README": b"text"}
    assert list(others[0].file.sources) == [str(disc)]
    assert not any(request.file.sources for request in others[1:])
    assert done.stdout.count("instances imported") == 1


def test_files_are_streamed_at_once_if_a_person_says_so(node: AnsweringNode, disc: Path) -> None:
    def answers(requests: Iterator[pb.ImportRequest]) -> Iterator[pb.ImportResponse]:
        assert list(requests)
        yield from ended()

    node.answers[IMPORT] = answers
    assert node.run("import", "--stream", str(disc / "README")).exit_code == 0
    assert streamed(node.requests(IMPORT)) == {"README": b"text"}
    assert not any(request.HasField("paths") for request in node.requests(IMPORT))


def test_file_whose_name_is_no_utf_8_is_streamed(node: AnsweringNode, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9")
    path.write_bytes(b"image")

    def answers(requests: Iterator[pb.ImportRequest]) -> Iterator[pb.ImportResponse]:
        assert list(requests)
        yield from ended()

    node.answers[IMPORT] = answers
    assert node.run("import", str(path)).exit_code == 0
    first, *data = node.requests(IMPORT)
    assert first.HasField("file")
    assert [request.data for request in data] == [b"image"]


def interrupted(requests: Iterator[pb.ImportRequest]) -> Iterator[pb.ImportResponse]:
    """Answer as a node does if a person presses Ctrl-C after the first file."""
    next(requests)
    yield pb.ImportResponse(progress=pb.ImportProgress(files_done=1, files_total=3))
    signal.raise_signal(signal.SIGINT)
    assert next(requests) == CANCEL


def test_interrupted_import_is_cancelled_at_the_node(node: AnsweringNode, disc: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    node.answers |= {IMPORT: interrupted, LIST: pb.ListImportsResponse()}
    done = node.run("import", str(disc))
    assert (done.exit_code, done.stdout) == (130, "")
    assert done.stderr == "emix: the import was cancelled; nothing of it was stored\n"
    assert node.requests(IMPORT) == [paths_of(disc), CANCEL]
    assert signal.getsignal(signal.SIGINT) is before


def test_cancelled_import_names_the_earlier_one_that_it_had_resumed(
    node: AnsweringNode, disc: Path
) -> None:
    other = pb.UnfinishedImport(number=4, sources=["/elsewhere"])
    running = pb.UnfinishedImport(number=5, sources=[str(disc)], is_running=True)
    same = pb.UnfinishedImport(number=6, sources=[str(disc)])
    node.answers |= {IMPORT: interrupted, LIST: pb.ListImportsResponse(imports=[other, running])}
    assert "nothing of it was stored" in node.run("import", str(disc)).stderr
    node.answers[LIST] = pb.ListImportsResponse(imports=[other, running, same])
    done = node.run("import", str(disc))
    assert done.exit_code == 130
    assert "`emix imports resume i6` continues it" in done.stderr
    assert "`emix imports discard i6` deletes them" in done.stderr


def test_error_of_the_node_ends_an_import_without_a_summary(
    node: AnsweringNode, disc: Path
) -> None:
    before = signal.getsignal(signal.SIGINT)
    node.answers[IMPORT] = [finding("hold", "/disc/IM1", "odd"), StoreFull("the disk is full")]
    done = node.run("import", str(disc))
    assert done.exit_code == StoreFull.exit_code
    assert done.stderr == "emix: the disk is full\n"
    assert "imported" not in done.stdout
    assert signal.getsignal(signal.SIGINT) is before


CHECK = "NodeService.CheckStore"


@pytest.mark.parametrize("problems", [[], ["chunk abc is damaged"]])
def test_verified_is_what_was_opened_again(
    node: AnsweringNode, disc: Path, problems: list[str]
) -> None:
    node.answers[CHECK] = [
        pb.CheckStoreResponse(chunks_done=1, chunks_total=2),
        *(pb.CheckStoreResponse(chunks_done=1, problem=problem) for problem in problems),
        pb.CheckStoreResponse(chunks_done=2, chunks_total=2),
        pb.CheckStoreResponse(chunks_unopened=9),
    ]
    node.answers["NodeService.GetIdentity"] = pb.GetIdentityResponse()
    done = node.run("import", "--verify", str(disc))
    assert done.exit_code == bool(problems)
    assert node.requests(CHECK) == [
        pb.CheckStoreRequest(read_data=True, study_instance_uids=["1.2.3"])
    ]
    last = f"Verified: 2 chunks opened and checked, {len(problems)} problems."
    assert done.stdout.splitlines()[-1] == last
    for problem in problems:
        assert f"PROBLEM  {problem}: keep the files, and import them again" in done.stdout
    said = node.json("import", "--verify", str(disc), status=bool(problems))
    assert said["verified"] == {"chunks": 2, "problems": problems}


def test_nothing_is_verified_where_nothing_came(node: AnsweringNode, disc: Path) -> None:
    node.answers[IMPORT] = ended(pb.ImportSummary(), [])
    said = node.json("import", "--verify", str(disc), status=1)
    assert said["verified"] == {"chunks": 0, "problems": []}
    assert node.requests(CHECK) == []
