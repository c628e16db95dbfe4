"""A peer that calls itself so that it is sent what is meant for another."""

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.dicom_files import study_uid, write_study
from tests.support.hostile import HostilePeer
from tests.support.nodes import CommandFailed, Node

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = Node(tmp_path_factory.mktemp("node"), "victim", "Victim Hospital")
    node.make()
    node.start()
    node.run("import", str(write_study(tmp_path_factory.mktemp("in"), 1, 1)))
    yield node
    node.stop()


def pair(node: Node, folder: Path, name: str, *options: str) -> tuple[HostilePeer, str]:
    """Have a node pair with a facility that calls itself so; return what it prints."""
    peer = HostilePeer(folder, secrets.token_hex(4))
    file = folder / f"{peer.name}.emix"
    peer.name = name
    file.write_bytes(peer.statements())
    return peer, node.run("peers", "pair", str(file), *options)


def test_what_is_sent_to_an_id_goes_to_it_and_to_nobody_of_that_name(
    node: Node, tmp_path: Path
) -> None:
    friend, _ = pair(node, tmp_path, "Friendly Clinic")
    try:
        pair(node, tmp_path, str(friend.facility))
    except CommandFailed as exc:
        assert "looks like a Facility ID" in str(exc)  # noqa: PT017  # it may, or must not matter
    [sent] = node.json("send", study_uid(1), str(friend.facility))["transfers"]
    assert sent["peer"] == str(friend.facility)


def test_beginning_of_an_id_is_no_name_either(node: Node, tmp_path: Path) -> None:
    other = HostilePeer(tmp_path, "Unpaired Clinic")
    with pytest.raises(CommandFailed, match="looks like a Facility ID"):
        pair(node, tmp_path, str(other.facility)[:20])


def test_name_that_looks_like_anothers_is_warned_of_and_not_sent_to(
    node: Node, tmp_path: Path
) -> None:
    honest, _ = pair(node, tmp_path, "Billings Hospital")
    twin, printed = pair(node, tmp_path, "\u0412illings Hospital", "--json")
    [warning] = json.loads(printed)["warnings"]
    assert str(honest.facility) in warning
    with pytest.raises(CommandFailed, match="use the Facility ID"):
        node.run("send", study_uid(1), "Billings Hospital")
    [sent] = node.json("send", study_uid(1), str(honest.facility))["transfers"]
    assert sent["peer"] == str(honest.facility)
    node.run("peers", "remove", str(twin.facility), "--yes")


def test_facility_itself_takes_no_name_that_looks_like_an_id(tmp_path: Path) -> None:
    name = str(HostilePeer(tmp_path, "other").facility)
    mine = Node(tmp_path, "mine", name)
    with pytest.raises(CommandFailed, match="does not look like a Facility ID"):
        mine.make()
