"""`emix export`: what the node writes, what is written for it, and what was left out."""

import os
import shlex
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from emix.admin.v1 import admin_pb2 as pb

from node.errors import (
    ConfigError,
    Conflict,
    NodeError,
    NotFound,
    SeveralOrigins,
    StoreFull,
    UsageError,
)
from tests.support.answering import IDENTITY, AnsweringNode, widest
from tests.support.dicom_files import make_instance

EXPORT = "StudyService.ExportStudy"
ORIGIN = "b" * 52
FILES = {
    "SE000001/IM000001": b"first" * 100,
    "SE000001/IM000002": b"second" * 100,
    "SE000002/IM000001": b"third",
}
TOTAL = sum(map(len, FILES.values()))
BEGIN = pb.ExportStudyResponse(instances_total=3, bytes_total=TOTAL, origin=ORIGIN)
END = pb.ExportStudyResponse(
    instances_done=3, instances_total=3, bytes_done=TOTAL, bytes_total=TOTAL, origin=ORIGIN
)
HELD = pb.ExportStudyResponse(
    held=pb.HeldInstance(
        held_id=3, sop_instance_uid="1.2.3", reasons=["an executable in the preamble", "odd"]
    )
)
CANNOT = pb.ExportStudyResponse(unwritable=True)


def pieces(files: dict[str, bytes] = FILES, size: int = 256) -> list[pb.ExportStudyResponse]:
    """Return the files as a node streams them, one after the other."""
    return [
        pb.ExportStudyResponse(
            piece=pb.ExportPiece(
                name=name, offset=start, data=data[start : start + size], size=len(data)
            )
        )
        for name, data in files.items()
        for start in range(0, len(data), size)
    ]


def streamed_only(*answers: pb.ExportStudyResponse | NodeError) -> Any:
    """Return the answer of a node that may not write where the caller may."""
    return lambda request: answers if request.stream else [CANNOT]


@pytest.fixture
def node(tmp_path: Path) -> AnsweringNode:
    return AnsweringNode(tmp_path / "home", {EXPORT: [BEGIN, END]})


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_node_writes_where_it_may_and_the_command_says_what(node: AnsweringNode, out: Path) -> None:
    done = node.run("export", "s12", str(out))
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == f"3 instances, 1.1 kB in {out}; sealed by {ORIGIN}.\n"
    (request,) = node.requests(EXPORT)
    above = out.parent.stat()
    assert request == pb.ExportStudyRequest(
        study="s12",
        directory=str(out),
        parent_device=above.st_dev,
        parent_inode=above.st_ino,
    )
    assert [sent.name for sent in node.sent] == [IDENTITY, EXPORT]


def test_every_option_is_sent(node: AnsweringNode, out: Path) -> None:
    options = "--origin own --dicomdir --safe-preamble --all-versions --include-held"
    done = node.run("export", "1.2", str(out), *options.split())
    assert done.exit_code == 0
    (request,) = node.requests(EXPORT)
    assert request.origin == "own"
    assert request.dicomdir
    assert request.safe_preamble
    assert request.all_versions
    assert request.include_held
    assert "files differ from the originals" in done.stdout


def test_relative_folder_is_sent_as_a_whole_path(
    node: AnsweringNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert node.run("export", "s12", "out").exit_code == 0
    assert node.requests(EXPORT)[0].directory == f"{tmp_path}/out"


def test_missing_folder_above_is_an_error_before_anything_is_sent(
    node: AnsweringNode, tmp_path: Path
) -> None:
    for name in ("none/out", "none/out.zip"):
        done = node.run("export", "s12", str(tmp_path / name))
        assert done.exit_code == ConfigError.exit_code
        assert f"{tmp_path}/none does not exist" in done.stderr
        assert "Mount the disk, or create the folders" in done.stderr
    assert node.sent == []


def test_command_writes_the_files_where_the_node_may_not(node: AnsweringNode, out: Path) -> None:
    node.answers[EXPORT] = streamed_only(BEGIN, *reversed(pieces()), END)
    done = node.run("export", "s12", str(out), "--dicomdir", "--origin", ORIGIN)
    first, second = node.requests(EXPORT)
    assert (first.stream, second.stream, second.in_order) == (False, True, False)
    assert (second.study, second.origin, second.dicomdir) == ("s12", ORIGIN, True)
    # None of these files is DICOM.
    assert done.exit_code == 1
    assert files_in(out) == FILES
    assert out.stat().st_mode & 0o077 == 0
    assert "3 files are exported, and no DICOMDIR can list them:" in done.stdout
    assert "no DICOMDIR was written for them: none of them can be listed." in done.stdout


def test_streamed_export_of_dicom_files_has_a_dicomdir(node: AnsweringNode, out: Path) -> None:
    files = {f"SE000001/IM00000{n}": make_instance(1, n, size=4) for n in (1, 2)}
    files["SE000001/IM000003"] = b"no DICOM"
    node.answers[EXPORT] = streamed_only(BEGIN, *pieces(files), END)
    shown = node.json("export", "s12", str(out), "--dicomdir", status=1)
    assert shown["has_dicomdir"] is True
    assert [one["name"] for one in shown["unlisted"]] == ["SE000001/IM000003"]
    assert files.items() < files_in(out).items()
    assert (out / "DICOMDIR").read_bytes()[128:132] == b"DICM"


def test_export_that_ends_early_leaves_nothing(node: AnsweringNode, out: Path) -> None:
    def interrupted(_: Any) -> Iterator[pb.ExportStudyResponse]:
        yield from (BEGIN, *pieces()[:2])
        raise KeyboardInterrupt

    for target in (out, out.with_suffix(".zip")):
        gone = Conflict("the study was deleted meanwhile")
        node.answers[EXPORT] = streamed_only(BEGIN, *pieces()[:2], gone)
        done = node.run("export", "s12", str(target))
        assert (done.exit_code, done.stdout) == (Conflict.exit_code, "")
        assert "deleted meanwhile" in done.stderr
        node.answers[EXPORT] = lambda request: interrupted(request) if request.stream else [CANNOT]
        done = node.run("export", "s12", str(target))
        assert (done.exit_code, done.stdout) == (130, "")
        assert "interrupted; the partial export was removed" in done.stderr
    assert [path.name for path in out.parent.iterdir()] == ["home"]


def test_export_without_room_is_refused_before_a_file_is_written(
    node: AnsweringNode, out: Path
) -> None:
    large = pb.ExportStudyResponse(instances_total=1, bytes_total=2**60, origin=ORIGIN)
    for target in (out, out.with_suffix(".zip")):
        node.answers[EXPORT] = streamed_only(large, *pieces(), END)
        done = node.run("export", "s12", str(target))
        assert done.exit_code == StoreFull.exit_code, done.output
        assert not target.exists()


def test_folder_with_files_in_it_is_not_written_into(node: AnsweringNode, out: Path) -> None:
    out.mkdir()
    (out / "notes").write_text("mine")
    node.answers[EXPORT] = streamed_only(BEGIN, *pieces(), END)
    done = node.run("export", "s12", str(out))
    assert done.exit_code == Conflict.exit_code
    assert "is not empty; export into a new folder" in done.stderr
    assert files_in(out) == {"notes": b"mine"}


@pytest.mark.parametrize("name", ["out.zip", "OUT.ZIP"])
def test_zip_file_is_written_here_of_files_in_order(
    node: AnsweringNode, tmp_path: Path, name: str
) -> None:
    node.answers[EXPORT] = [BEGIN, *pieces(), END]
    path = tmp_path / name
    done = node.run("export", "s12", str(path))
    assert done.exit_code == 0, done.output
    assert done.stdout == f"3 instances, 1.1 kB in {path}; sealed by {ORIGIN}.\n"
    (request,) = node.requests(EXPORT)
    assert (request.stream, request.in_order) == (True, True)
    with zipfile.ZipFile(path) as archive:
        assert {one: archive.read(one) for one in archive.namelist()} == FILES
        assert {one.compress_type for one in archive.infolist()} == {zipfile.ZIP_STORED}
    assert path.stat().st_mode & 0o077 == 0


def test_zip_file_has_a_dicomdir_if_one_can_be_made(node: AnsweringNode, tmp_path: Path) -> None:
    path = tmp_path / "out.zip"
    files = {"SE000001/IM000001": make_instance(1, 1, size=4), "SE000001/IM000002": b"no DICOM"}
    node.answers[EXPORT] = [BEGIN, *pieces(files), END]
    shown = node.json("export", "s12", str(path), "--dicomdir", status=1)
    assert shown["has_dicomdir"] is True
    assert [one["name"] for one in shown["unlisted"]] == ["SE000001/IM000002"]
    assert set(zipfile.ZipFile(path).namelist()) == {"DICOMDIR", *files}
    path.unlink()
    node.answers[EXPORT] = [BEGIN, *pieces(), END]
    shown = node.json("export", "s12", str(path), "--dicomdir", status=1)
    assert shown["has_dicomdir"] is False
    assert len(shown["unlisted"]) == 3
    assert set(zipfile.ZipFile(path).namelist()) == set(FILES)


@pytest.mark.parametrize("name", ["out.zip", "out", "caf\udce9"])
def test_home_gets_no_export_whoever_would_write_it(node: AnsweringNode, name: str) -> None:
    (node.home / "folder").mkdir()
    node.answers[EXPORT] = streamed_only(BEGIN, *pieces(), END)
    done = node.run("export", "s12", str(node.home / "folder" / name))
    assert done.exit_code == UsageError.exit_code
    assert "a home is encrypted and an export is not; choose another folder" in done.stderr
    assert node.sent == []


def test_folder_whose_name_is_no_utf_8_is_written_here(node: AnsweringNode, tmp_path: Path) -> None:
    out = tmp_path / os.fsdecode(b"caf\xe9")
    node.answers[EXPORT] = [BEGIN, *pieces(), END]
    done = node.run("export", "s12", str(out))
    assert done.exit_code == 0, done.output
    assert [request.stream for request in node.requests(EXPORT)] == [True]
    assert files_in(out) == FILES


def test_held_instances_are_named_and_make_it_partial(node: AnsweringNode, out: Path) -> None:
    node.answers[EXPORT] = [BEGIN, HELD, END]
    done = node.run("export", "s12", str(out))
    assert done.exit_code == 1
    assert done.stdout.splitlines()[0].split("  ")[-1] == (
        "1.2.3: an executable in the preamble; odd (number 3)"
    )
    assert "1 held instances were left out: `emix held release NUMBER`" in done.stdout
    shown = node.json("export", "s12", str(out), status=1)
    assert shown["held"][0]["held_id"] == 3


def test_older_versions_are_counted_and_unfinished_imports_make_it_partial(
    node: AnsweringNode, out: Path
) -> None:
    older = pb.ExportStudyResponse(instances_done=3, older_versions=4)
    node.answers[EXPORT] = [older]
    done = node.run("export", "s12", str(out))
    assert done.exit_code == 0
    assert "4 older versions were left out: --all-versions writes them, too." in done.stdout
    node.answers[EXPORT] = [pb.ExportStudyResponse(unfinished_imports=[7]), older]
    done = node.run("export", "s12", str(out))
    assert done.exit_code == 1
    assert "import i7 of this study is not finished; see `emix imports`" in done.stdout
    shown = node.json("export", "s12", str(out), status=1)
    assert (shown["older_versions"], shown["unfinished_imports"]) == (4, [7])


def test_attachments_are_not_counted_as_instances(node: AnsweringNode, out: Path) -> None:
    first = pb.ExportStudyResponse(attachments=1, origin=ORIGIN)
    node.answers[EXPORT] = [first, END]
    assert "2 instances and 1 attachments, " in node.run("export", "s12", str(out)).stdout
    shown = node.json("export", "s12", str(out))
    assert (shown["instances"], shown["attachments"]) == (2, 1)


@pytest.mark.parametrize("count", [3, 12])
def test_ten_files_without_an_entry_in_the_dicomdir_are_named(
    node: AnsweringNode, out: Path, count: int
) -> None:
    unlisted = [
        pb.UnlistedFile(name=f"SE000001/IM{n:06}", reason="no Patient ID") for n in range(count)
    ]
    node.answers[EXPORT] = [
        BEGIN,
        *[pb.ExportStudyResponse(unlisted=one) for one in unlisted],
        END,
    ]
    done = node.run("export", "s12", str(out), "--dicomdir")
    assert done.exit_code == 1
    assert f"{count} files are exported, and the DICOMDIR does not list them:" in done.stdout
    assert done.stdout.count(": no Patient ID") == min(count, 10)
    assert ("and 2 more; see --json" in done.stdout) == (count == 12)
    shown = node.json("export", "s12", str(out), "--dicomdir", status=1)
    assert (len(shown["unlisted"]), shown["has_dicomdir"]) == (count, True)


def test_dicomdir_that_the_node_could_not_write_is_said_to_be_missing(
    node: AnsweringNode, out: Path
) -> None:
    node.answers[EXPORT] = [BEGIN, END, pb.ExportStudyResponse(without_dicomdir=True)]
    done = node.run("export", "s12", str(out), "--dicomdir")
    assert done.exit_code == 1
    assert done.stdout.startswith("3 instances, ")
    assert "no DICOMDIR was written for them: the node's log says why." in done.stdout
    assert node.json("export", "s12", str(out), "--dicomdir", status=1)["has_dicomdir"] is False


def test_export_in_json_is_one_value_with_the_whole_path(
    node: AnsweringNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert node.json("export", "s12", "out", "--safe-preamble") == {
        "directory": f"{tmp_path}/out",
        "origin": ORIGIN,
        "instances": 3,
        "attachments": 0,
        "bytes": TOTAL,
        "is_byte_exact": False,
        "held": [],
        "has_dicomdir": False,
        "unlisted": [],
        "older_versions": 0,
        "unfinished_imports": [],
    }


def test_several_origins_are_listed_with_the_command_for_each(
    node: AnsweringNode, out: Path
) -> None:
    own = "a" * 52
    node.answers[EXPORT] = SeveralOrigins("several facilities sealed images; add --origin")
    node.answers[IDENTITY] = pb.GetIdentityResponse(facility_id=own)
    packages = [pb.Package(), pb.Package()]
    sources = [
        pb.Study(origin=own, instances=3, packages=packages, patient_name="Doe^Jane"),
        pb.Study(origin=ORIGIN, origin_name="Billings Hospital", instances=2, packages=packages),
    ]
    node.answers["StudyService.GetStudy"] = pb.GetStudyResponse(sources=sources)
    done = node.run("export", "s12", str(out))
    assert (done.exit_code, done.stdout) == (Conflict.exit_code, "")
    lines = done.stderr.splitlines()
    assert lines[0] == "this facility, 3 instances in 2 packages:"
    assert lines[1].strip() == f"emix export s12 {out} --origin own"
    assert lines[2] == "Billings Hospital, 2 instances in 2 packages:"
    assert "Doe" not in done.output
    command = shlex.split(lines[3].strip())[1:]
    node.answers[EXPORT] = [BEGIN, END]
    assert node.run(*command).exit_code == 0
    assert node.requests(EXPORT)[-1].origin == ORIGIN
    assert not out.exists()


def test_several_origins_in_json_are_facts_of_the_error(node: AnsweringNode, out: Path) -> None:
    node.answers[EXPORT] = SeveralOrigins("several facilities sealed images; add --origin")
    node.answers["StudyService.GetStudy"] = pb.GetStudyResponse(sources=[pb.Study(origin=ORIGIN)])
    error = node.error("export", "s12", str(out))
    assert error["code"] == "several-origins"
    (origin,) = error["origins"]
    assert (origin["origin"], origin["name"]) == (ORIGIN, "not paired")
    assert origin["command"].endswith(f"--origin {ORIGIN}")


def test_unknown_study_is_the_nodes_error(node: AnsweringNode, out: Path) -> None:
    node.answers[EXPORT] = NotFound("no study is s99")
    done = node.run("export", "s99", str(out))
    assert (done.exit_code, done.stdout) == (NotFound.exit_code, "")
    assert done.stderr == "emix: no study is s99\n"
    assert widest(done.stderr) <= 80
