"""A command does not wait for ever for a node that hangs, and says whose silence it is."""

from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner
from emix.admin.v1 import admin_pb2 as pb

from node.cli import client
from node.cli.main import cli
from node.errors import PeerUnreachable
from tests.integration.attacks.texts import Handler, node_that

SERVICES = list(pb.DESCRIPTOR.services_by_name.values())


def hanging(_: Any) -> Handler:
    async def answer(_: Any) -> None:
        await trio.sleep_forever()

    return answer


def unreachable(_: Any) -> Handler:
    async def answer(_: Any) -> None:
        raise PeerUnreachable("nothing listens there (connection refused)")

    return answer


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "keyring").touch()
    return tmp_path


@pytest.mark.parametrize(
    "command", [["status"], ["studies"], ["cancel", "t1"], ["transfers", "--watch"]]
)
def test_node_that_hangs_is_given_up(
    home: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_ANSWER_SECONDS", 0.5)
    with node_that(hanging, home / "admin.sock", SERVICES):
        done = CliRunner().invoke(cli, ["--home", str(home), *command])
    assert done.exit_code == 20
    assert "the node did not answer within" in done.output


def test_what_the_node_says_of_another_is_not_said_of_the_node(home: Path) -> None:
    with node_that(unreachable, home / "admin.sock", SERVICES):
        done = CliRunner().invoke(cli, ["--home", str(home), "peers", "pair", "--at", "x:1"])
    assert (done.exit_code, "nothing listens there" in done.output) == (20, True)
    assert "check that it runs" not in done.output
