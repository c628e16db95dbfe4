"""A command's connection: which home, whose error, how long, and in whose name."""

import getpass
import grp
import os
import shlex
from pathlib import Path

import click
import pytest
from emix.admin.v1 import admin_pb2 as pb

from node.cli.client import node_client, run_call
from node.cli.main import cli
from node.errors import ConfigError, NotFound, PeerTimeout, PeerUnreachable, UsageError
from tests.integration.attacks.users import folder_of_user
from tests.support.answering import IDENTITY, AnsweringNode, run_emix

STATUS = "NodeService.GetStatus"
FIRST = pb.Study(
    study_instance_uid="1.2",
    origin="a",
    patient_name="Doe^Jane",
    packages=[pb.Package(package_id="1"), pb.Package(package_id="2")],
    series_entries=[pb.Series(series_number="1")],
)
SECOND = pb.Study(
    study_instance_uid="1.2",
    origin="a",
    packages=[pb.Package(package_id="3")],
    series_entries=[pb.Series(series_number="2")],
)
OTHER_ORIGIN = pb.Study(study_instance_uid="1.2", origin="b", packages=SECOND.packages)
OTHER_STUDY = pb.Study(study_instance_uid="1.3", origin="b", packages=SECOND.packages)


@pytest.fixture
def node(tmp_path: Path) -> AnsweringNode:
    return AnsweringNode(tmp_path / "home", {STATUS: pb.GetStatusResponse(studies=7)})


def context_of(home: Path) -> click.Context:
    """Return the context of a command that was given this home."""
    context = click.Context(cli)
    context.params["home"] = str(home)
    return context


def answer_of(node: AnsweringNode, name: str, request: pb.ListStudiesRequest) -> list[pb.Study]:
    with node.connected():
        return list(run_call(context_of(node.home), name, request).studies)


def test_call_returns_the_answer_of_the_node_in_that_home(node: AnsweringNode) -> None:
    with node.connected():
        answer = run_call(context_of(node.home), STATUS, pb.GetStatusRequest())
    assert answer == pb.GetStatusResponse(studies=7)
    assert node.names == [STATUS]


def test_entries_of_a_study_of_many_packages_are_put_together(node: AnsweringNode) -> None:
    name = "StudyService.ListStudies"
    node.answers[name] = [
        pb.ListStudiesResponse(studies=[FIRST, SECOND]),
        pb.ListStudiesResponse(studies=[SECOND, OTHER_ORIGIN, OTHER_STUDY]),
    ]
    whole, other_origin, other_study = answer_of(node, name, pb.ListStudiesRequest())
    assert [package.package_id for package in whole.packages] == ["1", "2", "3", "3"]
    assert [series.series_number for series in whole.series_entries] == ["1", "2", "2"]
    assert whole.patient_name == "Doe^Jane"
    assert (other_origin, other_study) == (OTHER_ORIGIN, OTHER_STUDY)


def test_sources_of_one_study_are_put_together_by_origin(node: AnsweringNode) -> None:
    name = "StudyService.GetStudy"
    node.answers[name] = [
        pb.GetStudyResponse(sources=[FIRST], chosen_by="uid"),
        pb.GetStudyResponse(sources=[SECOND, OTHER_ORIGIN]),
    ]
    with node.connected():
        answer = run_call(context_of(node.home), name, pb.GetStudyRequest(study="1.2"))
    assert [len(source.packages) for source in answer.sources] == [3, 1]
    assert answer.chosen_by == "uid"


def test_call_may_take_as_long_as_its_work_does(node: AnsweringNode) -> None:
    node.answers["StudyService.DeleteStudy"] = pb.DeleteStudyResponse()
    context = context_of(node.home)
    with node.connected():
        run_call(context, STATUS, pb.GetStatusRequest())
        run_call(context, "StudyService.DeleteStudy", pb.DeleteStudyRequest(study="1.2"))
    short, long = [sent.seconds for sent in node.sent]
    assert short is not None
    assert long is not None
    assert 10 <= short <= 300
    assert long >= 3600


def test_node_that_does_not_answer_in_time_may_still_work(node: AnsweringNode) -> None:
    node.broken = PeerTimeout("deadline exceeded")
    done = node.run("status")
    assert done.exit_code == PeerTimeout.exit_code
    assert "the node did not answer within 120 s; it may still work" in done.stderr
    assert "emix doctor" in done.stderr
    assert "deadline exceeded" not in done.stderr


@pytest.mark.parametrize("error", [PeerTimeout("Billings is slow"), PeerUnreachable("no route")])
def test_what_the_node_says_of_another_node_is_shown_unchanged(
    node: AnsweringNode, error: PeerTimeout | PeerUnreachable
) -> None:
    node.answers[STATUS] = error
    assert node.error("status")["message"] == str(error)


def test_broken_connection_is_an_error_of_the_node_in_that_home(node: AnsweringNode) -> None:
    node.broken = PeerUnreachable("connection reset")
    error = node.error("status")
    assert error["message"] == f"the node in {node.home} does not answer; check that it runs"
    assert error["code"] == "peer-unreachable"


def test_stream_is_not_opened_before_the_node_has_answered(node: AnsweringNode) -> None:
    request = pb.CheckStoreRequest()
    node.answers["NodeService.CheckStore"] = [pb.CheckStoreResponse(), pb.CheckStoreResponse()]
    with node.connected(), node_client(context_of(node.home)) as client:
        with client.stream("NodeService.CheckStore", request, timeout=5.0) as events:
            assert len(list(events)) == 2
        assert [sent.name for sent in node.sent] == [IDENTITY, "NodeService.CheckStore"]
        assert node.sent[0].seconds == 120.0
        assert node.sent[1].seconds == 5.0
        node.sent.clear()
        node.answers[IDENTITY] = PeerTimeout("asleep")
        with pytest.raises(PeerTimeout):
            client.stream("NodeService.CheckStore", request)
    assert node.names == []


def test_error_within_a_list_is_raised_and_no_half_list_returned(node: AnsweringNode) -> None:
    node.answers["StudyService.ListStudies"] = [
        pb.ListStudiesResponse(studies=[FIRST]),
        NotFound("the list ended"),
    ]
    with pytest.raises(NotFound, match="the list ended"):
        answer_of(node, "StudyService.ListStudies", pb.ListStudiesRequest())


@pytest.mark.parametrize(
    ("user", "sent"), [("alice", "alice"), ("zoë", "zo?"), ("", getpass.getuser())]
)
def test_person_behind_sudo_is_named_to_the_node(
    node: AnsweringNode, monkeypatch: pytest.MonkeyPatch, user: str, sent: str
) -> None:
    monkeypatch.setenv("SUDO_USER", user)
    node.run("status")
    assert node.metadata == {"emix-operator": sent}


def test_user_without_a_name_is_named_by_number(
    node: AnsweringNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setattr(getpass, "getuser", nameless)
    node.run("status")
    assert node.metadata == {"emix-operator": f"uid {os.getuid()}"}


def test_folder_that_is_no_home_is_wrong_usage(tmp_path: Path) -> None:
    done = run_emix(tmp_path, "status")
    assert done.exit_code == UsageError.exit_code
    assert f"{tmp_path} is not a node's home" in done.stderr
    assert "make one with `emix init`, or name it with --home" in done.stderr


def test_node_that_does_not_run_is_an_error_with_the_command_that_starts_it(
    tmp_path: Path,
) -> None:
    home = tmp_path / "Great Falls"
    home.mkdir()
    (home / "keyring").touch()
    done = run_emix(home, "status")
    assert done.exit_code == PeerUnreachable.exit_code
    assert done.stderr == (
        f"emix: no node runs in {home}; start it: emix --home {shlex.quote(str(home))} serve\n"
    )


def test_socket_that_others_could_replace_gets_no_request(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    node = AnsweringNode(shared / "home", {STATUS: pb.GetStatusResponse()})
    assert node.run("status").exit_code == 0
    node.sent.clear()
    shared.chmod(0o777)
    done = node.run("status")
    assert done.exit_code == ConfigError.exit_code
    assert str(shared) in done.stderr
    assert node.sent == []


OWNER, ME, GROUP = 64321, 64322, 64323


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user for a while")
def test_home_of_another_user_gets_no_request_and_the_next_step_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def status(node: AnsweringNode, *groups: int, expected: int = ConfigError.exit_code) -> str:
        before = os.getgroups()
        os.setgroups(groups)
        os.seteuid(ME)
        try:
            done = node.run("status")
        finally:
            os.seteuid(0)
            os.setgroups(before)
        assert done.exit_code == expected, done.output
        return done.stderr

    with folder_of_user() as folder:
        folder.chmod(0o755)
        theirs = AnsweringNode(folder / "node")
        os.chown(theirs.home, OWNER, GROUP)
        theirs.home.chmod(0o700)
        assert "only that user and root may use it" in status(theirs)
        theirs.home.chmod(0o710)
        text = status(theirs)  # no group has that number here
        assert f"{ME} is not in the group {GROUP}, whose members may use the node of" in text
        assert f"usermod -aG {GROUP} {ME}" in text
        assert f"sudo -u '#{OWNER}' emix ..." in text
        group = grp.struct_group(("admins", "x", GROUP, [str(ME)]))
        monkeypatch.setattr(grp, "getgrgid", lambda _: group)
        text = status(theirs)
        assert f"{ME} was added to the group admins after this log-in: log in again" in text
        assert theirs.sent == []
        theirs.answers[STATUS] = pb.GetStatusResponse()
        assert status(theirs, GROUP, expected=0) == ""
        assert theirs.names == [STATUS]
