"""Listing, querying, showing and deleting studies, as a person at the terminal sees them."""

from pathlib import Path

import pytest
from emix.admin.v1 import admin_pb2 as pb

from node.errors import NotFound, SeveralOrigins
from node.terminal.output import show_time
from tests.support.answering import IDENTITY, AnsweringNode, widest

LIST, QUERY = "StudyService.ListStudies", "StudyService.Query"
GET, DELETE = "StudyService.GetStudy", "StudyService.DeleteStudy"
OWN, OTHER = "AAAAAAA-OWN", "BBBBBBB-OTHER"
UID = "1.2.826.0.1.3680043.10.1338.7.20261126.4711.12"
DAY = 1_790_000_000


def study(**changes: object) -> pb.Study:
    """Return a study of one patient that another facility sealed, with these changes."""
    facts: dict[str, object] = {
        "number": 12,
        "study_instance_uid": UID,
        "origin": OTHER,
        "origin_name": "Billings Hospital",
        "patient_name": "Müller^Hans",
        "patient_id": "P-77",
        "birth_date": "19500102",
        "patients": [pb.Patient(name="Müller^Hans", patient_id="P-77", birth_date="19500102")],
        "patients_total": 1,
        "study_date": "20261124",
        "study_description": "Head without contrast",
        "modalities": ["CT", "SR"],
        "accession_number": "ACC-1",
        "series": 2,
        "instances": 340,
        "plaintext_bytes": 170_000_000,
        "sealed_bytes": 90_000_000,
        **changes,
    }
    return pb.Study(**facts)  # type: ignore[arg-type]


def found(*sources: pb.Study, chosen_by: str = "number") -> pb.GetStudyResponse:
    return pb.GetStudyResponse(sources=sources or (study(),), chosen_by=chosen_by)


@pytest.fixture
def node(tmp_path: Path) -> AnsweringNode:
    return AnsweringNode(
        tmp_path / "home",
        {
            IDENTITY: pb.GetIdentityResponse(facility_id=OWN),
            LIST: pb.ListStudiesResponse(studies=[study()]),
            QUERY: pb.QueryResponse(),
            GET: found(),
            DELETE: pb.DeleteStudyResponse(packages=2, instances=340),
        },
    )


def test_studies_are_searched_by_all_words_and_listed(node: AnsweringNode) -> None:
    done = node.run("studies", "muller", "2026-11-24")
    assert node.requests(LIST) == [pb.ListStudiesRequest(query="muller 2026-11-24", limit=200)]
    heading, row = done.stdout.splitlines()
    assert heading.split()[:3] == ["NO", "PATIENT", "ID"]
    for cell in ("s12", "Müller^Hans", "1950-01-02", "2026-11-24", "CT/SR", "170.0 MB", UID):
        assert cell in row
    assert (done.exit_code, done.stderr) == (0, "")


def test_list_fits_80_columns_and_keeps_patient_date_and_the_ends_of_the_uid(
    node: AnsweringNode,
) -> None:
    name = "Featherstonehaugh-Cholmondeley^Marjoribanks"
    long = study(patient_name=name, number=123456, origin=OWN)
    node.answers[LIST] = pb.ListStudiesResponse(studies=[study(), long])
    shown = node.run("studies", width=80).stdout
    assert widest(shown) <= 80
    short, longer = shown.splitlines()[1:]
    for line in (short, longer):
        assert "2026-11-24" in line
        assert line.endswith(UID[-5:])
    assert longer.startswith("s123456  Featherst")


def test_list_says_whose_study_is_of_a_facility_that_is_not_paired(node: AnsweringNode) -> None:
    node.answers[LIST] = pb.ListStudiesResponse(studies=[study(origin_name="")])
    assert "BBBBBBB (not paired)" in node.run("studies").stdout


def test_list_marks_a_study_that_an_unfinished_import_is_of(node: AnsweringNode) -> None:
    node.answers[LIST] = pb.ListStudiesResponse(studies=[study(unfinished_imports=[3])])
    assert "340 incomplete" in node.run("studies").stdout


def test_every_patient_under_one_study_uid_has_a_row(node: AnsweringNode) -> None:
    patients = [pb.Patient(name="Müller^Hans"), pb.Patient(name="Roe^Jane", birth_date="19610203")]
    node.answers[LIST] = pb.ListStudiesResponse(studies=[study(patients=patients)])
    first, second = node.run("studies").stdout.splitlines()[1:]
    assert "Müller^Hans" in first
    assert second.split("  ")[0].strip() == "s12"
    for cell in ("Roe^Jane", "1961-02-03", "another patient"):
        assert cell in second


def test_empty_list_says_whether_nothing_matches_or_nothing_is_here(node: AnsweringNode) -> None:
    node.answers[LIST] = pb.ListStudiesResponse()
    assert node.run("studies").stdout == "No study is here yet.\n"
    assert node.run("studies", "muller").stdout == "No study matches.\n"


def test_full_list_says_that_there_may_be_more(node: AnsweringNode) -> None:
    done = node.run("studies", "--limit", "1")
    assert done.stderr == "The newest 1; --limit 0 shows all.\n"
    assert node.run("studies", "--limit", "2").stderr == ""
    assert node.run("studies", "--limit", "0").stderr == ""
    assert [request.limit for request in node.requests(LIST)] == [1, 2, 0]


def test_list_in_json_is_of_all_studies_with_all_their_fields(node: AnsweringNode) -> None:
    shown = node.json("studies")["studies"]
    assert node.requests(LIST) == [pb.ListStudiesRequest(limit=0)]
    assert len(shown) == 1
    assert (shown[0]["instances"], shown[0]["modalities"]) == (340, ["CT", "SR"])
    assert shown[0]["patients"][0]["name"] == "Müller^Hans"


def test_query_parts_keys_and_words(node: AnsweringNode) -> None:
    node.run("query", "PatientName=mul=*", "head", "--level", "SERIES", "contrast", "Modality=CT")
    assert node.requests(QUERY) == [
        pb.QueryRequest(
            level="series",
            keys={"PatientName": "mul=*", "Modality": "CT"},
            words="head contrast",
            limit=200,
        )
    ]


def test_key_that_is_given_twice_is_refused_before_anything_is_sent(node: AnsweringNode) -> None:
    done = node.run("query", "Modality=CT", "PatientID=1", "Modality=MR")
    assert (done.exit_code, node.sent) == (2, [])
    assert done.stderr == "emix: Modality is given twice; give each key once\n"


def test_word_may_be_given_twice(node: AnsweringNode) -> None:
    assert node.run("query", "head", "head").exit_code == 0
    assert node.requests(QUERY)[0].words == "head head"


def test_matches_of_studies_are_a_table_with_dates_for_people(node: AnsweringNode) -> None:
    values = {
        "PatientName": "Müller^Hans",
        "StudyDate": "20261124",
        "ModalitiesInStudy": "CT SR",
        "NumberOfStudyRelatedInstances": "340",
        "StudyInstanceUID": UID,
    }
    node.answers[QUERY] = pb.QueryResponse(matches=[pb.Match(number=12, values=values)])
    heading, row = node.run("query", "muller").stdout.splitlines()
    assert heading.split() == ["NO", "PATIENT", "DATE", "MOD", "INST", "STUDY", "UID"]
    assert row.split() == ["s12", "Müller^Hans", "2026-11-24", "CT/SR", "340", UID]


@pytest.mark.parametrize(
    ("level", "uid", "cell"),
    [
        ("study", "StudyInstanceUID", ("StudyDescription", "Head")),
        ("series", "SeriesInstanceUID", ("SeriesNumber", "7")),
        ("image", "SOPInstanceUID", ("Rows", "512")),
    ],
)
def test_matches_of_every_level_fit_80_columns(
    node: AnsweringNode, level: str, uid: str, cell: tuple[str, str]
) -> None:
    values = {"PatientName": "Cholmondeley^" * 6, uid: UID, cell[0]: cell[1]}
    values |= {"StudyDate": "20261124", "SeriesDescription": "without contrast " * 4}
    node.answers[QUERY] = pb.QueryResponse(matches=[pb.Match(number=12, values=values)])
    done = node.run("query", "--level", level, width=80)
    assert widest(done.stdout) <= 80
    row = done.stdout.splitlines()[1]
    assert cell[1] in row
    assert row.endswith(UID[-5:])


def test_page_of_matches_says_how_to_get_the_next_one(node: AnsweringNode) -> None:
    node.answers[QUERY] = pb.QueryResponse(matches=[pb.Match(number=n) for n in (1, 2)])
    done = node.run("query", "--offset", "10", "--limit", "2")
    assert node.requests(QUERY)[0].offset == 10
    assert done.stderr == "More may match: --offset 12, or --limit 0 for all.\n"
    assert node.run("query", "--limit", "3").stderr == ""


def test_query_without_a_match_says_from_where_it_looked(node: AnsweringNode) -> None:
    assert node.run("query", "nobody").stdout == "Nothing matches.\n"
    done = node.run("query", "nobody", "--offset", "40")
    assert done.stdout == "Nothing matches after the first 40.\n"


def test_matches_in_json_have_the_values_as_the_files_have_them(node: AnsweringNode) -> None:
    match = pb.Match(number=12, values={"StudyDate": "20261124"})
    node.answers[QUERY] = pb.QueryResponse(matches=[match])
    shown = node.json("query", "StudyDate=20261124")["matches"]
    assert shown[0]["values"] == {"StudyDate": "20261124"}
    assert node.requests(QUERY)[0].limit == 0


def test_study_is_shown_with_patient_content_and_where_it_came_from(node: AnsweringNode) -> None:
    package = pb.Package(
        package_id="0123456789abcdef",
        instances=340,
        created_seconds=DAY,
        received_from="Billings Hospital",
        recipient="Dr. Jones",
        priority="stat",
        note="second opinion",
        held_instances=2,
        flagged_instances=3,
        attachments=[
            pb.Attachment(media_type="application/pdf", size_bytes=2000),
            pb.Attachment(media_type="text/plain", size_bytes=20, about_uids=["1.2", "1.3"]),
        ],
        further_deliveries=[
            pb.PackageDelivery(sender="Havre Clinic", received_seconds=DAY, recipient="Dr. Roe")
        ],
    )
    series = pb.Series(series_number="3", modality="CT", description="Axial", instances=170)
    node.answers[GET] = found(
        study(packages=[package], series_entries=[series], institution="Billings")
    )
    done = node.run("study", "s12")
    assert node.requests(GET) == [pb.GetStudyRequest(study="s12")]
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    when = show_time(DAY)
    for line in (
        "number s12",
        f"study {UID}",
        f"origin Billings Hospital {OTHER}",
        "patient Müller^Hans P-77 born 1950-01-02",
        "examination 2026-11-24 Head without contrast",
        "content 2 series, 340 instances, 170.0 MB (sealed 90.0 MB)",
        "sent to nobody",
        "3 CT Axial 170",
        f"package 01234567 340 instances, {when}, from Billings Hospital, 2 held, 3 odd",
        "for Dr. Jones; stat; second opinion",
        "attached: application/pdf, 2.0 kB, about the study",
        "attached: text/plain, 20 B, about 2 series or instances",
        f"sent by Havre Clinic, too, {when}: for Dr. Roe",
    ):
        assert line in lines
    assert not any(line.startswith("referred by") for line in lines)
    assert not any(line.startswith("attention") for line in lines)


def test_study_says_who_has_all_of_it_a_part_or_nothing_any_more(node: AnsweringNode) -> None:
    node.answers[GET] = found(
        study(
            packages=[
                pb.Package(instances=300, created_seconds=DAY),
                pb.Package(instances=40),
            ],
            versioned_instances=4,
            sent_to=["Havre Clinic", "Butte Hospital", "Miles City"],
            delivered_seconds=[DAY, DAY, DAY],
            deleted_seconds=[0, 0, DAY + 86400],
            delivered_instances=[340, 300, 340],
        )
    )
    said = " ".join(node.run("study", "s12").stdout.split())
    when, later = show_time(DAY), show_time(DAY + 86400)
    assert (
        f"sent to Havre Clinic, receipt of {when};"
        f" Butte Hospital, receipt of {when}, 300 of 340 instances;"
        f" Miles City, receipt of {when}, deleted there on {later}"
    ) in said
    assert f"300 instances, {when}, imported here" in said
    assert "versions 4 more versions than instances" in said


def test_study_calls_attention_to_several_patients_and_unfinished_imports(
    node: AnsweringNode,
) -> None:
    node.answers[GET] = found(study(patients_total=2, unfinished_imports=[3]))
    said = node.run("study", "s12").stdout
    assert "attention  2 patients under one Study Instance UID" in said
    assert "Incomplete: import i3 of this study is not finished; see `emix imports`." in said


def test_study_of_several_facilities_is_shown_apart_for_each(node: AnsweringNode) -> None:
    own = study(origin=OWN, origin_name="Great Falls", instances=7)
    node.answers[GET] = found(study(), own)
    said = node.run("study", UID).stdout
    assert "2 series, 340 instances" in said
    assert "2 series, 7 instances" in said
    assert said.endswith("2 facilities have sealed this study; each is shown apart.\n")


def test_very_many_series_and_packages_are_cut_off_for_people_only(node: AnsweringNode) -> None:
    series = [pb.Series(series_instance_uid=f"1.2.{n}") for n in range(53)]
    packages = [pb.Package(package_id=f"{n:08}") for n in range(51)]
    node.answers[GET] = found(study(series_entries=series, packages=packages))
    said = node.run("study", "s12").stdout
    assert "1.2.49" in said
    assert "1.2.50" not in said
    assert "and 3 more series; --json shows all" in said
    assert "and 1 more packages; --json shows all" in said
    shown = node.json("study", "s12")["sources"][0]
    assert (len(shown["series_entries"]), len(shown["packages"])) == (53, 51)


def test_facts_and_series_of_a_study_fit_80_columns(node: AnsweringNode) -> None:
    series = [pb.Series(series_instance_uid=UID, description="very thin slices " * 5)]
    node.answers[GET] = found(
        study(series_entries=series, study_description="without contrast " * 9)
    )
    assert widest(node.run("study", "s12", width=80).stdout) <= 80


def test_study_that_is_not_here_is_an_error_of_its_own_status(node: AnsweringNode) -> None:
    node.answers[GET] = NotFound("no study matches; see `emix studies`")
    done = node.run("study", "s99")
    assert (done.exit_code, done.stdout) == (4, "")
    assert done.stderr == "emix: no study matches; see `emix studies`\n"


def test_deletion_shows_the_study_and_happens_once_it_is_confirmed(node: AnsweringNode) -> None:
    done = node.run("delete", "s12", typed="y\n")
    assert done.exit_code == 0
    shown, said = done.stdout.splitlines()
    assert shown == (
        "s12, Müller^Hans, P-77, born 1950-01-02, 2026-11-24, CT/SR, Head without contrast,"
        f" 340 instances, from Billings Hospital, {UID}"
    )
    assert said == "Deleted 340 instances in 2 packages."
    assert "Delete it from this node? [y/N]" in done.stderr
    assert node.requests(DELETE) == [pb.DeleteStudyRequest(study=UID)]


@pytest.mark.parametrize("typed", ["n\n", "\n"])
def test_declined_deletion_deletes_nothing(node: AnsweringNode, typed: str) -> None:
    done = node.run("delete", "s12", typed=typed)
    assert done.exit_code == 1
    assert "nothing was done" in done.stderr
    assert DELETE not in node.names


def test_deletion_without_a_terminal_needs_yes(node: AnsweringNode) -> None:
    done = node.run("delete", "s12")
    assert (done.exit_code, "add --yes if you are sure" in done.stderr) == (2, True)
    assert node.error("delete", "s12")["code"] == "usage"
    assert DELETE not in node.names
    done = node.run("delete", "s12", "--yes")
    assert (done.exit_code, done.stdout) == (0, "Deleted 340 instances in 2 packages.\n")
    assert node.json("delete", "s12", "--yes")["instances"] == 340


@pytest.mark.parametrize("option", ["--yes", "--json"])
def test_study_found_by_words_is_not_deleted_unseen(node: AnsweringNode, option: str) -> None:
    node.answers[GET] = found(chosen_by="words")
    done = node.run("delete", "muller", option)
    assert done.exit_code == 2
    assert "name the study by number, UID or accession number" in done.stderr
    assert DELETE not in node.names


def test_origin_that_a_study_number_chose_is_the_one_that_is_deleted(node: AnsweringNode) -> None:
    own = study(origin=OWN, origin_name="Great Falls")
    node.answers[GET] = pb.GetStudyResponse(sources=[study(), own], chosen_origin=OWN)
    done = node.run("delete", "s13", typed="y\n")
    assert "from Great Falls" in done.stdout
    assert "from Billings Hospital" not in done.stdout
    assert node.requests(DELETE) == [pb.DeleteStudyRequest(study=UID, origin=OWN)]


@pytest.mark.parametrize(
    ("origin", "shown"),
    [
        ("own", "Great Falls"),
        (" OWN", "Great Falls"),
        ("bbbbbbb-o", "Billings Hospital"),
        (OTHER.replace("-", "").lower(), "Billings Hospital"),
        (OTHER.replace("O", "0").replace("-", "\u2013"), "Billings Hospital"),
        ("BILLINGS hospital", "Billings Hospital"),
    ],
)
def test_only_the_named_origin_is_shown_before_it_is_deleted(
    node: AnsweringNode, origin: str, shown: str
) -> None:
    own = study(origin=OWN, origin_name="Great Falls")
    node.answers[GET] = pb.GetStudyResponse(sources=[study(), own], chosen_origin=OTHER)
    done = node.run("delete", UID, "--origin", origin, typed="y\n")
    lines = [line for line in done.stdout.splitlines() if ", from " in line]
    assert len(lines) == 1
    assert f", from {shown}, " in lines[0]
    assert node.requests(DELETE) == [pb.DeleteStudyRequest(study=UID, origin=origin)]


def test_origin_that_sealed_nothing_of_the_study_is_not_asked_about(node: AnsweringNode) -> None:
    node.answers[GET] = found(study())
    done = node.run("delete", UID, "--origin", "Havre", typed="y\n")
    assert done.exit_code == 4
    assert "that facility sealed no package of the study" in done.stderr
    assert node.requests(DELETE) == []


def test_study_of_several_origins_is_deleted_once_one_is_named(node: AnsweringNode) -> None:
    own = study(origin=OWN, origin_name="Great Falls")
    node.answers[GET] = found(study(), own)
    node.answers[DELETE] = SeveralOrigins("several facilities sealed it: name one with --origin")
    done = node.run("delete", "s12", "--yes")
    assert done.exit_code == 5
    assert f"emix delete {UID} --origin own" in done.stderr
    assert f"emix delete {UID} --origin {OTHER}" in done.stderr
    assert done.stdout == ""


def test_what_was_not_deleted_is_named_with_the_command_that_deletes_it(
    node: AnsweringNode,
) -> None:
    held = [pb.HeldInstance(held_id=n) for n in range(1, 13)]
    node.answers[DELETE] = pb.DeleteStudyResponse(
        packages=1, instances=3, held=held, held_instances=12, unfinished_imports=[4]
    )
    done = node.run("delete", "s12", "--yes")
    assert done.exit_code == 1
    first, second, third = done.stdout.splitlines()
    assert first == "Deleted 3 instances in 1 packages."
    assert second == (
        "12 held instances of it were not deleted: `emix held discard 1 2 3 4 5 6 7 8 9 10`"
        " deletes them; 2 more are in `emix held`."
    )
    assert "`emix imports discard i4`" in third
    shown = node.json("delete", "s12", "--yes", status=1)
    assert (shown["held_instances"], shown["unfinished_imports"]) == (12, [4])
