"""A study with several origins: the command for each is shown, and no patient's name."""

import json
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from emix.admin.v1 import admin_pb2 as pb

from node.cli.origins import asking_for_origin, origin_option
from node.errors import NodeError, NotFound, SeveralOrigins
from node.terminal.output import is_json_asked
from tests.support.answering import IDENTITY, AnsweringNode

GET = "StudyService.GetStudy"
OWN, OTHER, THIRD = "AAAAAAA-OWN", "BBBBBBB-OTHER", "CCCCCCC-THIRD"
SOURCES = [
    pb.Study(
        origin=OWN,
        origin_name="Great Falls",
        patient_name="Müller^Hans",
        instances=7,
        packages=[pb.Package()],
    ),
    pb.Study(
        origin=OTHER,
        origin_name="Billings Hospital",
        patient_name="Müller^Hans",
        instances=340,
        packages=[pb.Package(), pb.Package()],
    ),
    pb.Study(origin=THIRD, instances=2, packages=[pb.Package()]),
]


@pytest.fixture
def node(tmp_path: Path) -> AnsweringNode:
    return AnsweringNode(
        tmp_path / "home",
        {
            IDENTITY: pb.GetIdentityResponse(facility_id=OWN),
            GET: pb.GetStudyResponse(sources=SOURCES),
        },
    )


def asked(
    node: AnsweringNode, *arguments: str, error: NodeError | None = None, json_: bool = False
) -> NodeError:
    """Return what leaves a block in which a command with these arguments fails."""
    before = is_json_asked.set(json_)
    context = click.Context(click.Command("emix"))
    context.params["home"] = str(node.home)
    try:
        with (
            node.connected(),
            pytest.raises(NodeError) as caught,
            asking_for_origin(context, "1.2.3", *arguments),
        ):
            raise error or SeveralOrigins("several facilities sealed it")
    finally:
        is_json_asked.reset(before)
    return caught.value


def test_every_origin_has_its_command_and_its_size(
    node: AnsweringNode, capsys: pytest.CaptureFixture[str]
) -> None:
    asked(node, "delete", "1.2.3")
    assert node.requests(GET) == [pb.GetStudyRequest(study="1.2.3")]
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "this facility, 7 instances in 1 packages:",
        "  emix delete 1.2.3 --origin own",
        "Billings Hospital, 340 instances in 2 packages:",
        f"  emix delete 1.2.3 --origin {OTHER}",
        "not paired, 2 instances in 1 packages:",
        f"  emix delete 1.2.3 --origin {THIRD}",
    ]


def test_no_patient_is_named(node: AnsweringNode, capsys: pytest.CaptureFixture[str]) -> None:
    error = asked(node, "delete", "1.2.3")
    assert "Müller" not in capsys.readouterr().err + json.dumps(dict(error.facts))


def test_command_can_be_pasted_into_a_shell(
    node: AnsweringNode, capsys: pytest.CaptureFixture[str]
) -> None:
    asked(node, "send", "1.2.3", "St. Mary's $(reboot)")
    command = capsys.readouterr().err.splitlines()[1]
    assert shlex.split(command) == [
        *("emix", "send", "1.2.3", "St. Mary's $(reboot)", "--origin", "own")
    ]


def test_machines_get_the_origins_with_the_error_and_no_text(
    node: AnsweringNode, capsys: pytest.CaptureFixture[str]
) -> None:
    error = asked(node, "delete", "1.2.3", json_=True)
    assert error.facts["origins"] == [
        {
            "origin": OWN,
            "name": "this facility",
            "command": "emix delete 1.2.3 --origin own",
        },
        {
            "origin": OTHER,
            "name": "Billings Hospital",
            "command": f"emix delete 1.2.3 --origin {OTHER}",
        },
        {
            "origin": THIRD,
            "name": "not paired",
            "command": f"emix delete 1.2.3 --origin {THIRD}",
        },
    ]
    assert capsys.readouterr() == ("", "")


def test_other_errors_pass_without_a_question(
    node: AnsweringNode, capsys: pytest.CaptureFixture[str]
) -> None:
    error = NotFound("no study matches")
    assert asked(node, "delete", "1.2.3", error=error) is error
    assert (node.sent, capsys.readouterr().err) == ([], "")


def test_block_that_succeeds_asks_the_node_nothing(node: AnsweringNode) -> None:
    with asking_for_origin(click.Context(click.Command("emix")), "1.2.3", "delete"):
        pass
    assert node.sent == []


def test_option_means_any_origin_unless_it_is_given() -> None:
    @click.command()
    @origin_option
    def shown(origin: str) -> None:
        click.echo(f"<{origin}>")

    assert CliRunner().invoke(shown).output == "<>\n"
    assert CliRunner().invoke(shown, ["--origin", "own"]).output == "<own>\n"
