"""Naming a study: plain names go to the node as they are, words need a person's yes."""

from pathlib import Path

import pytest
from click.testing import Result
from emix.admin.v1 import admin_pb2 as pb

from node.cli.choosing import incomplete, is_path, of_patient, summary_of
from node.errors import Conflict, NotFound, NotMeant, UsageError
from tests.support.answering import AnsweringNode

GET, EXPORT = "StudyService.GetStudy", "StudyService.ExportStudy"
STUDY = pb.Study(
    number=12,
    study_instance_uid="1.2.840.113619.2.7",
    origin="own",
    patient_name="Doe^Jane",
    patients_total=1,
    patient_id="4711",
    birth_date="19710203",
    study_date="20261124",
    modalities=["CT", "SR"],
    study_description="Chest",
    instances=240,
)
SUMMARY = (
    "s12, Doe^Jane, 4711, born 1971-02-03, 2026-11-24, CT/SR, Chest, 240 instances, incomplete"
)


def found(chosen_by: str) -> pb.GetStudyResponse:
    return pb.GetStudyResponse(sources=[STUDY], chosen_by=chosen_by)


@pytest.fixture
def node(tmp_path: Path) -> AnsweringNode:
    exported = [pb.ExportStudyResponse(instances_done=240)]
    return AnsweringNode(tmp_path / "home", {GET: found("words"), EXPORT: exported})


def export(node: AnsweringNode, study: str, *options: str, typed: str | None = None) -> Result:
    """Run a command that takes a study, and does nothing else here."""
    return node.run("export", study, str(node.home.parent / "out"), *options, typed=typed)


@pytest.mark.parametrize(
    "name", ["s12", "S12", " s12 ", "1.2.840.113619.2.7", "1.", "1.2.840…2.7", "0.1"]
)
def test_number_or_uid_is_sent_without_a_question(node: AnsweringNode, name: str) -> None:
    done = export(node, name)
    assert done.exit_code == 0, done.output
    assert node.names == [EXPORT]
    assert node.requests(EXPORT)[0].study == name


@pytest.mark.parametrize("name", ["doe chest", "4711", "s", "s12a", "12s", "1.2 chest", "s" * 20])
def test_study_found_by_words_is_exported_after_a_yes(node: AnsweringNode, name: str) -> None:
    done = export(node, name, typed="y\n")
    assert done.exit_code == 0, done.output
    assert done.stderr.splitlines()[0] == SUMMARY.removesuffix(", incomplete")
    assert "Is this the study? [y/N]" in done.stderr
    assert "Is this" not in done.stdout
    assert node.requests(GET) == [pb.GetStudyRequest(study=name)]
    assert node.requests(EXPORT)[0].study == STUDY.study_instance_uid


@pytest.mark.parametrize("typed", ["n\n", "\n"])
def test_nothing_is_exported_after_a_no(node: AnsweringNode, typed: str) -> None:
    done = export(node, "doe chest", typed=typed)
    assert done.exit_code == NotMeant.exit_code
    assert done.stderr.endswith("emix: nothing was done\n")
    assert node.names == [GET]
    assert not (node.home.parent / "out").exists()


def test_without_a_terminal_words_need_yes(node: AnsweringNode) -> None:
    done = export(node, "doe chest")
    assert done.exit_code == UsageError.exit_code
    assert "add --yes if you are sure. Nothing was done" in done.stderr
    assert node.names == [GET]
    done = export(node, "doe chest", "--yes")
    assert done.exit_code == 0
    assert done.stderr == SUMMARY.removesuffix(", incomplete") + "\n"
    assert node.requests(EXPORT)[0].study == STUDY.study_instance_uid


def test_program_is_not_asked_and_gets_an_error(node: AnsweringNode) -> None:
    error = node.error("export", "doe chest", str(node.home.parent / "out"))
    assert (error["code"], error["exit_status"]) == ("usage", UsageError.exit_code)
    assert "--yes" in error["message"]
    assert node.names == [GET]


@pytest.mark.parametrize("chosen_by", ["accession", "uid", "number"])
def test_study_found_by_its_accession_number_needs_no_question(
    node: AnsweringNode, chosen_by: str
) -> None:
    node.answers[GET] = found(chosen_by)
    done = export(node, "A4711")
    assert (done.exit_code, done.stderr) == (0, "")
    assert node.requests(EXPORT)[0].study == STUDY.study_instance_uid


def test_words_that_match_several_studies_are_the_nodes_error(node: AnsweringNode) -> None:
    node.answers[GET] = Conflict("2 studies match; name one: s12, s13")
    done = export(node, "doe", "--yes")
    assert done.exit_code == Conflict.exit_code
    assert done.stderr == "emix: 2 studies match; name one: s12, s13\n"
    assert node.names == [GET]


def test_unknown_name_that_is_a_file_here_is_explained(
    node: AnsweringNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.answers[GET] = NotFound("no study matches")
    monkeypatch.chdir(tmp_path)
    assert export(node, "cdrom").stderr == "emix: no study matches\n"
    (tmp_path / "cdrom").mkdir()
    done = export(node, "cdrom")
    assert done.exit_code == NotFound.exit_code
    assert done.stderr == ("emix: no study matches; a file or folder has a / in it: ./cdrom\n")


@pytest.mark.parametrize(
    ("text", "is_one"), [("./cdrom", True), ("/media", True), ("cdrom", False), ("1.2.3", False)]
)
def test_only_a_slash_makes_a_path(text: str, is_one: bool) -> None:
    assert is_path(text) is is_one


def test_summary_leaves_out_what_is_not_there() -> None:
    assert summary_of(STUDY) == SUMMARY.removesuffix(", incomplete")
    assert summary_of(pb.Study(number=3, instances=1)) == "s3, 1 instances"


def test_summary_warns_of_several_patients_and_unfinished_imports() -> None:
    study = pb.Study.FromString(STUDY.SerializeToString())
    study.unfinished_imports.append(4)
    assert summary_of(study) == SUMMARY
    study.patients_total = 2
    assert ", 2 patients: Doe^Jane, 4711, " in summary_of(study)
    assert "i4 of this study is not finished; see `emix imports`" in incomplete(4)


def test_line_about_a_patient_has_only_what_is_known() -> None:
    patient = pb.Patient(name="Doe^Jane", patient_id="4711", birth_date="19710203", sex="F")
    assert of_patient(patient) == "Doe^Jane  4711  born 1971-02-03  F"
    assert of_patient(pb.Patient(patient_id="4711", birth_date="about 1971")) == (
        "4711  born about 1971"
    )
    assert of_patient(pb.Patient()) == ""
