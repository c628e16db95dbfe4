"""Sending with one command: several studies, questions, paths, waiting, and what was left out."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from emix.admin.v1 import admin_pb2 as pb

from node.errors import NodeError, NotFound, PeerTimeout, SeveralOrigins, SeveralPatients
from node.terminal.output import show_time
from tests.support.answering import IDENTITY, AnsweringNode

SEND, WATCH = "TransferService.Send", "TransferService.WatchTransfers"
TOGETHER, LIST = "TransferService.SendStudies", "StudyService.ListStudies"
GET, IMPORT = "StudyService.GetStudy", "StudyService.Import"
UID = "1.2.826.0.1.3680043.10.1338.7"
BILLINGS = "Billings Hospital"
DAY = 1_790_000_000


def transfer(number: int, state: str = "pending", **changes: object) -> pb.Transfer:
    facts: dict[str, object] = {
        "number": number,
        "transfer_id": f"{number:04}F2A9ABCDEF",
        "direction": "send",
        "peer_name": BILLINGS,
        "state": state,
        "instances": 340,
        "plaintext_bytes": 170_000_000,
        "updated_seconds": DAY,
        **changes,
    }
    return pb.Transfer(**facts)  # type: ignore[arg-type]


def taken(request: pb.SendRequest) -> pb.SendResponse | NodeError:
    """Make transfer 12 of study s12, and so on; no study has the number 99."""
    if not request.study:
        return pb.SendResponse()
    if request.study == "s99":
        return NotFound("no study matches; see `emix studies`")
    return pb.SendResponse(transfers=[transfer(int(request.study.lstrip("s").rpartition(".")[2]))])


def taken_together(request: pb.SendStudiesRequest) -> Iterator[pb.SendStudiesResponse]:
    """Do as `taken`, of each."""
    for index, study in enumerate(request.studies):
        one = pb.SendRequest(study=study)
        one.MergeFrom(request.order)
        said = taken(one)
        if isinstance(said, NodeError):
            code = said.code.value
            yield pb.SendStudiesResponse(index=index, error_code=code, error=str(said))
        else:
            yield pb.SendStudiesResponse(index=index, sent=said)


def found(chosen_by: str = "words", **changes: object) -> pb.GetStudyResponse:
    facts: dict[str, object] = {
        "number": 12,
        "study_instance_uid": f"{UID}.12",
        "patient_name": "Müller^Hans",
        "study_date": "20261124",
        "instances": 340,
        **changes,
    }
    return pb.GetStudyResponse(
        sources=[pb.Study(**facts)],  # type: ignore[arg-type]
        chosen_by=chosen_by,
    )


@pytest.fixture
def node(tmp_path: Path) -> AnsweringNode:
    return AnsweringNode(
        tmp_path / "home",
        {
            IDENTITY: pb.GetIdentityResponse(facility_id="AAAAAAA-OWN"),
            SEND: taken,
            TOGETHER: taken_together,
            GET: found(),
        },
    )


def sent(node: AnsweringNode) -> list[str]:
    """Return what was sent, in the order of its calls."""
    names = []
    for call in node.sent:
        match call.request:
            case pb.SendRequest(study=study):
                names.append(study)
            case pb.SendStudiesRequest(studies=studies):
                names += studies
    return names


def test_error_with_one_study_does_not_keep_the_others_here(node: AnsweringNode) -> None:
    done = node.run("send", "s12", "s99", "s13", BILLINGS)
    assert done.exit_code == 4
    assert sent(node) == ["s12", "s99", "s13"]
    (request,) = node.requests(TOGETHER)
    assert request.order.facility == BILLINGS
    assert done.stderr == "emix: 2 of 3: no study matches; see `emix studies`\n"
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["t12", "t13"]


def test_single_study_is_not_counted(node: AnsweringNode) -> None:
    done = node.run("send", "s99", BILLINGS)
    assert done.stderr == "emix: no study matches; see `emix studies`\n"
    assert (done.exit_code, done.stdout) == (4, "")


def test_json_has_the_transfers_and_which_study_failed_why(node: AnsweringNode) -> None:
    done = node.run("send", "s99", "s12", BILLINGS, "--json")
    assert done.exit_code == 4
    shown = json.loads(done.stdout)
    assert [one["number"] for one in shown["transfers"]] == [12]
    message = "no study matches; see `emix studies`"
    assert shown["errors"] == [{"study": "s99", "code": "not-found", "message": message}]
    error = json.loads(done.stderr)["error"]
    assert (error["study"], error["message"], error["exit_status"]) == ("s99", message, 4)


def test_study_found_by_words_is_shown_and_sent_once_confirmed(node: AnsweringNode) -> None:
    done = node.run("send", "muller 2026", BILLINGS, typed="y\n")
    assert done.exit_code == 0
    assert "s12, Müller^Hans, 2026-11-24, 340 instances" in done.stderr
    assert "Is this the study? [y/N]" in done.stderr
    assert sent(node) == [f"{UID}.12"]


def test_study_that_is_not_the_one_meant_stays_here(node: AnsweringNode) -> None:
    done = node.run("send", "muller", "s13", BILLINGS, typed="n\n")
    assert done.exit_code == 1
    assert "1 of 2: nothing was done" in done.stderr
    assert sent(node) == ["s13"]


def test_message_does_not_repeat_words_that_may_name_a_patient(node: AnsweringNode) -> None:
    node.answers[GET] = NotFound("no study matches; see `emix studies`")
    done = node.run("send", "muller^hans", "s13", BILLINGS)
    assert "1 of 2: no study matches" in done.stderr
    assert "muller" not in done.output


def test_nobody_is_asked_with_yes(node: AnsweringNode) -> None:
    done = node.run("send", "muller", BILLINGS, "--yes")
    assert done.exit_code == 0
    assert "[y/N]" not in done.output
    (request,) = node.requests(SEND)
    assert (request.study, request.several_patients) == (f"{UID}.12", True)


def test_study_found_by_words_is_not_sent_where_nobody_can_be_asked(node: AnsweringNode) -> None:
    done = node.run("send", "muller", BILLINGS)
    assert (done.exit_code, sent(node)) == (2, [])
    assert "add --yes if you are sure" in done.stderr


def of_several(request: pb.SendRequest) -> pb.SendResponse | NodeError:
    if not request.several_patients:
        return SeveralPatients("the study has several patients")
    return taken(request)


@pytest.fixture
def several(node: AnsweringNode) -> AnsweringNode:
    patients = [pb.Patient(name="Müller^Hans", birth_date="19500102"), pb.Patient(name="Roe^Jane")]
    node.answers[SEND] = of_several
    answer = found("number", patients=patients, patients_total=2)
    answer.sources.add(patients=[pb.Patient(name="Poe^Ann")], patients_total=1)
    node.answers[GET] = answer
    return node


def test_several_patients_are_shown_and_sent_once_confirmed(several: AnsweringNode) -> None:
    done = several.run("send", "s12", BILLINGS, typed="y\n")
    assert done.exit_code == 0
    assert "  Müller^Hans  born 1950-01-02\n  Roe^Jane\n" in done.stderr
    assert "Poe^Ann" not in done.output
    assert "The study has several patients. Send all of them?" in done.stderr
    assert [request.several_patients for request in several.requests(SEND)] == [False, True]


def test_study_of_several_patients_is_not_sent_if_declined(several: AnsweringNode) -> None:
    done = several.run("send", "s12", BILLINGS, typed="n\n")
    assert done.exit_code == 5
    assert "the study has several patients; it was not sent" in done.stderr
    assert [request.several_patients for request in several.requests(SEND)] == [False]


def test_study_of_several_patients_is_not_sent_by_a_script_without_yes(
    several: AnsweringNode,
) -> None:
    done = several.run("send", "s12", BILLINGS, "--json")
    assert done.exit_code == 2
    assert [request.several_patients for request in several.requests(SEND)] == [False]
    assert several.json("send", "s12", BILLINGS, "--yes")["errors"] == []


def test_study_of_several_origins_has_a_command_for_each(node: AnsweringNode) -> None:
    node.answers[SEND] = SeveralOrigins("several facilities sealed it: name one with --origin")
    node.answers[GET] = pb.GetStudyResponse(
        sources=[pb.Study(origin="AAAAAAA-OWN"), pb.Study(origin="BBBBBBB-OTHER")]
    )
    done = node.run("send", "s12", BILLINGS)
    assert done.exit_code == 5
    assert "  emix send s12 'Billings Hospital' --origin own\n" in done.stderr
    assert "  emix send s12 'Billings Hospital' --origin BBBBBBB-OTHER\n" in done.stderr


def imported(*uids: str, **counts: int) -> list[pb.ImportResponse]:
    """Return what a node says of an import that found these studies."""
    return [
        pb.ImportResponse(studies=pb.ImportStudies(study_instance_uids=uids)),
        pb.ImportResponse(summary=pb.ImportSummary(**counts)),
    ]


def test_path_is_imported_and_every_study_of_it_is_sent(
    node: AnsweringNode, tmp_path: Path
) -> None:
    node.answers[IMPORT] = imported(f"{UID}.12", f"{UID}.13", carried=2)
    done = node.run("send", str(tmp_path), BILLINGS, "--note", "second opinion")
    assert done.exit_code == 0
    assert node.names == [SEND, IMPORT, SEND, SEND]
    assert node.requests(IMPORT)[0].paths.paths == [str(tmp_path)]
    check, *orders = node.requests(SEND)
    assert check == pb.SendRequest(facility=BILLINGS)
    assert [order.study for order in orders] == [f"{UID}.12", f"{UID}.13"]
    assert {order.note for order in orders} == {"second opinion"}
    assert "2 instances imported" in done.stdout


def test_nothing_is_imported_for_a_facility_that_cannot_be_sent_to(
    node: AnsweringNode, tmp_path: Path
) -> None:
    node.answers[SEND] = NotFound("no paired facility is called 'Bilings'")
    done = node.run("send", str(tmp_path), "Bilings")
    assert (done.exit_code, node.names) == (4, [SEND])
    assert "no paired facility is called 'Bilings'" in done.stderr


def test_path_that_is_not_there_does_not_keep_a_study_here(
    node: AnsweringNode, tmp_path: Path
) -> None:
    done = node.run("send", f"{tmp_path}/none", "s13", BILLINGS)
    assert done.exit_code == 2
    assert "1 of 2: " in done.stderr
    assert "/none cannot be accessed" in done.stderr
    assert sent(node) == ["", "s13"]


def test_import_that_held_a_file_fails_although_the_rest_is_sent(
    node: AnsweringNode, tmp_path: Path
) -> None:
    node.answers[IMPORT] = imported(f"{UID}.12", carried=2, held=1)
    shown = node.json("send", str(tmp_path), BILLINGS, status=1)
    assert [one["number"] for one in shown["transfers"]] == [12]
    assert shown["imports"][0]["summary"]["held"] == 1
    assert shown["imports"][0]["summary"]["study_instance_uids"] == [f"{UID}.12"]
    assert shown["errors"] == []


def test_wait_that_takes_too_long_says_what_is_left_and_that_sending_goes_on(
    node: AnsweringNode,
) -> None:
    delivered = pb.WatchTransfersResponse(transfer=transfer(12, "delivered"))
    node.answers[WATCH] = [delivered, PeerTimeout("no answer in time")]
    done = node.run("send", "s12", "s13", BILLINGS, "--timeout", "60")
    assert done.exit_code == 1
    assert node.requests(WATCH) == [pb.WatchTransfersRequest(numbers=[12, 13])]
    assert (
        "Not delivered within 60 s: t13 (0013F2A9). Sending continues; `emix transfers`"
        " shows the progress, `emix cancel` cancels it.\n"
    ) in done.stderr
    assert done.stdout == (
        f"transfer t12 (0012F2A9) to Billings Hospital: delivered {show_time(DAY)},"
        " 340 instances, 170.0 MB\n"
        "transfer t13 (0013F2A9) to Billings Hospital: pending, 340 instances, 170.0 MB\n"
    )


def test_node_that_does_not_answer_is_not_called_a_late_delivery(node: AnsweringNode) -> None:
    node.answers[WATCH] = PeerTimeout("the node does not answer")
    done = node.run("send", "s12", BILLINGS, "--wait")
    assert done.exit_code == PeerTimeout.exit_code
    assert "Not delivered within" not in done.stderr
    assert "the node does not answer" in done.stderr


def test_command_for_an_origin_has_the_other_options_and_no_word_about_the_study(
    node: AnsweringNode,
) -> None:
    node.answers[SEND] = SeveralOrigins("several facilities sealed it: name one with --origin")
    node.answers[GET] = pb.GetStudyResponse(sources=[pb.Study(origin="BBBBBBB-OTHER")])
    options = ("--priority", "stat", "--again", "--note", "knee of Hans", "--timeout", "60")
    done = node.run("send", "s12", BILLINGS, *options)
    command = "emix send s12 'Billings Hospital' --priority stat --again --timeout 60"
    assert f"  {command} --origin BBBBBBB-OTHER\n" in done.stderr
    assert "Add --note as before.\n" in done.stderr
    assert "knee" not in done.output


def test_wait_ends_with_ctrl_c_and_the_transfers_are_still_listed(node: AnsweringNode) -> None:
    def watched(_: object) -> Iterator[pb.WatchTransfersResponse]:
        yield pb.WatchTransfersResponse(transfer=transfer(12, "carrying"))
        raise KeyboardInterrupt

    node.answers[WATCH] = watched
    done = node.run("send", "s12", BILLINGS, "--wait")
    assert done.exit_code == 130
    assert "emix: no longer waiting; sending continues: see `emix transfers`" in done.stderr
    assert "transfer t12 (0012F2A9) to Billings Hospital: carrying" in done.stdout


def test_wait_stops_watching_as_soon_as_every_transfer_has_ended(node: AnsweringNode) -> None:
    def watched(_: object) -> Iterator[pb.WatchTransfersResponse]:
        for number in (13, 12):
            yield pb.WatchTransfersResponse(transfer=transfer(number, "delivered"))
        pytest.fail("nothing is left to wait for")

    node.answers[WATCH] = watched
    assert node.run("send", "s12", "s13", BILLINGS, "--wait").exit_code == 0


def test_what_was_delivered_before_is_not_waited_for(node: AnsweringNode) -> None:
    node.answers[SEND] = pb.SendResponse(transfers=[transfer(12, "delivered")], known=["0012F2A9"])
    done = node.run("send", "s12", BILLINGS, "--wait")
    assert (done.exit_code, node.names) == (0, [SEND])
    first, second, third = done.stdout.splitlines()
    assert first.startswith("1 of 1 packages were sent there before: nothing new is sent for them")
    assert "--again" in first
    assert "may have been deleted there since" in second
    assert third.startswith("transfer t12 (0012F2A9) to Billings Hospital: delivered")


def test_study_without_anything_to_send_fails(node: AnsweringNode) -> None:
    node.answers[SEND] = pb.SendResponse()
    assert node.run("send", "s12", BILLINGS).exit_code == 1


@pytest.mark.parametrize(
    ("left", "text"),
    [
        (
            pb.SendResponse(held_packages=["0123456789abcdef"]),
            "package 01234567 is not sent: an instance of it is held here (`emix held`);"
            " release it, or send it held with --include-held",
        ),
        (
            pb.SendResponse(
                held=[pb.HeldInstance(held_id=3, sop_instance_uid="1.2.3", reasons=["a", "b"])]
            ),
            "1.2.3 is held here and was not sent (a; b); to release it: `emix held release 3`",
        ),
        (
            pb.SendResponse(unfinished_imports=[4]),
            "Incomplete: import i4 of this study is not finished; see `emix imports`.",
        ),
    ],
)
def test_what_was_left_out_is_named_and_the_command_fails(
    node: AnsweringNode, left: pb.SendResponse, text: str
) -> None:
    left.transfers.append(transfer(12))
    node.answers[SEND] = left
    done = node.run("send", "s12", BILLINGS)
    assert done.exit_code == 1
    assert text in done.stdout.splitlines()
    assert "transfer t12" in done.stdout


def test_many_studies_are_sent_with_one_call_and_questions_come_after(node: AnsweringNode) -> None:
    asked: list[str] = []

    def patients(request: pb.SendStudiesRequest) -> Iterator[pb.SendStudiesResponse]:
        for index, study in enumerate(request.studies):
            if study == "s13":
                error = SeveralPatients("two patients")
                code = error.code.value
                yield pb.SendStudiesResponse(index=index, error_code=code, error=str(error))
            else:
                said = taken(pb.SendRequest(study=study))
                assert isinstance(said, pb.SendResponse)
                yield pb.SendStudiesResponse(index=index, sent=said)

    def one(request: pb.SendRequest) -> pb.SendResponse | NodeError:
        asked.append(request.study)
        return taken(request)

    node.answers |= {TOGETHER: patients, SEND: one}
    done = node.run("send", "s12", "s13", "s14", BILLINGS, "--json")
    assert done.exit_code == 0
    assert asked == ["s13"]
    assert [t["number"] for t in json.loads(done.stdout)["transfers"]] == [12, 14, 13]


def test_very_many_studies_are_sent_in_several_calls(
    node: AnsweringNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.cli.sending._MOST_TOGETHER", 4)
    node.answers[GET] = found("accession")
    names = [f"s{n}" for n in range(20, 30)]
    done = node.run("send", *names, "ACC7", "s31", "s32", BILLINGS)
    assert done.exit_code == 0
    together = [list(request.studies) for request in node.requests(TOGETHER)]
    assert together == [names[:4], names[4:8], names[8:], ["s31", "s32"]]
    assert sent(node) == [*names, f"{UID}.12", "s31", "s32"]


def test_studies_come_from_standard_input(node: AnsweringNode) -> None:
    done = node.run("send", "--stdin", BILLINGS, typed="s12\n\n  s13 \ns99\n")
    assert done.exit_code == 4
    assert sent(node) == ["s12", "s13", "s99"]
    assert done.stderr == "emix: 3 of 3: no study matches; see `emix studies`\n"


@pytest.mark.parametrize(
    ("arguments", "typed", "reason"),
    [
        ([], "", "name a study to send"),
        (["--stdin"], " \n\n", "names no study"),
        (["--stdin", "s12"], "s13", "only the facility is named"),
        (["--stdin", "--all"], "s13", "not with both"),
    ],
)
def test_studies_are_named_in_one_way(
    node: AnsweringNode, arguments: list[str], typed: str, reason: str
) -> None:
    done = node.run("send", *arguments, BILLINGS, typed=typed)
    assert done.exit_code == 2
    assert reason in done.stderr
    assert sent(node) == []


def listing(count: int) -> pb.ListStudiesResponse:
    studies = [
        pb.Study(number=n, study_instance_uid=f"{UID}.{n}", patient_name=f"Doe^Jane {n}")
        for n in range(1, count + 1)
    ]
    return pb.ListStudiesResponse(studies=[*studies, studies[0]])  # of two origins


def test_all_that_match_are_sent_once_a_person_has_seen_them(node: AnsweringNode) -> None:
    node.answers[LIST] = listing(12)
    done = node.run("send", "--all", "doe", "CT", BILLINGS)
    assert done.exit_code == 2, "there is no terminal to ask at"
    assert sent(node) == []
    assert "Doe^Jane 10" in done.stderr
    assert "Doe^Jane 11" not in done.stderr
    done = node.run("send", "--all", "doe", "CT", BILLINGS, "--yes")
    assert done.exit_code == 0
    assert sent(node) == [f"{UID}.{n}" for n in range(1, 13)]
    assert {request.query for request in node.requests(LIST)} == {"doe CT"}


def test_nothing_matches_all(node: AnsweringNode) -> None:
    node.answers[LIST] = pb.ListStudiesResponse()
    done = node.run("send", "--all", "nobody", BILLINGS, "--yes")
    assert done.exit_code == 4
    assert "no study matches" in done.stderr
