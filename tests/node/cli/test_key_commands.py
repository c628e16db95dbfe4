"""Commands about keys, on a home in which no node runs: what they do, print, and refuse."""

import json
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner

from node.app.home import Home, NewNode, make_home, unlock
from node.cli.main import cli
from node.store.context import StoreContext, open_store
from node.store.package_rows import find_packages
from tests.support.attachments import REPORT, put_package


class Made:
    """A home of two packages, and its kit."""

    def __init__(self, folder: Path) -> None:
        self.home, self.kit = Home(folder / "home"), folder / "kit.json"
        make_home(self.home, NewNode("Clinic", self.kit, None, "127.0.0.1:0", "127.0.0.1:0"))
        context = self.opened()
        try:
            for study in (1, 2):
                trio.run(put_package, context, study, [("text/plain", REPORT, ())])
        finally:
            context.close()

    def opened(self) -> StoreContext:
        found = unlock(self.home, None)
        return open_store(
            self.home.root, found.root_key, found.secrets, found.signer, reserve_bytes=0
        )

    def run(self, *arguments: str, status: int = 0) -> str:
        done = CliRunner().invoke(cli, ["--home", str(self.home.root), *arguments])
        assert done.exit_code == status, done.output
        return done.output

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json"))

    def packages(self) -> int:
        """Return how many packages open with the keys that are here."""
        context = self.opened()
        try:
            found = context.database.read_sync(lambda db: find_packages(db, "1", ()))
            for package in found:
                context.data_key(package)
            return len(found)
        finally:
            context.close()


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


def test_epoch_is_rotated_and_everything_opens_under_the_new_one(made: Made) -> None:
    assert made.json("keys", "rotate-epoch") == {
        "epoch": 2,
        "packages": 2,
        "destroyed_epochs": [1],
    }
    assert sorted(unlock(made.home, None).secrets.epochs) == [2]
    assert made.packages() == 2
    said = made.run("keys", "rotate-epoch")
    assert "2 packages are under epoch 3 now" in said
    assert "Destroyed the keys of epochs 2" in said


def test_shredding_makes_a_new_epoch_and_moves_what_is_there(made: Made) -> None:
    assert made.json("keys", "shred")["packages"] == 2
    assert made.packages() == 2


def test_seal_key_is_new_and_the_last_one_is_kept(made: Made) -> None:
    before = unlock(made.home, None).secrets.seal_keys
    assert made.json("keys", "rotate-seal") == {"kept": 1, "destroyed": 0}
    now = unlock(made.home, None).secrets.seal_keys
    assert [key.public for key in now[1:]] == [key.public for key in before]
    assert "The seal key is new. 2 older ones are kept" in made.run("keys", "rotate-seal")


def test_node_key_is_replaced_by_the_kit(made: Made) -> None:
    before = made.json("keys")
    replaced = made.json("node", "replace", "--recovery-kit", str(made.kit))
    assert replaced["node_id"] != before["node_id"]
    assert replaced["generation"] > before["generation"]
    assert made.json("keys") == replaced
    assert made.packages() == 2
    assert str(replaced["node_id"]) in made.run("keys")


def test_certificate_is_renewed_by_the_kit_here(made: Made) -> None:
    before = made.json("keys")
    renewed = made.json("node", "renew", "--recovery-kit", str(made.kit))
    assert renewed["node_id"] == before["node_id"]
    assert renewed["expires_seconds"] >= before["expires_seconds"]
    assert "was renewed" in made.run("node", "renew", "--recovery-kit", str(made.kit))


def test_certificate_is_made_where_the_kit_is_and_taken_here(made: Made, tmp_path: Path) -> None:
    asked, answer = str(tmp_path / "node.request"), str(tmp_path / "node.certificate")
    node = made.json("keys")["node_id"]
    assert made.json("node", "request", asked) == {"file": asked, "node_id": node}
    certify = ("node", "certify", asked, answer, "--recovery-kit", str(made.kit))
    assert "the node's ID is needed" in made.run(*certify, status=2)
    assert "not a node ID" in made.run(*certify, "--node", "nonsense", status=2)
    made_there = made.json(*certify, "--node", node)
    assert (made_there["node_id"], made_there["file"]) == (node, answer)
    assert made.json("node", "renew", "--certificate", answer)["node_id"] == node
    (tmp_path / "second").mkdir()
    other = Made(tmp_path / "second")
    said = other.run("node", "renew", "--certificate", answer, status=11)
    assert "for another node key" in said


@pytest.mark.parametrize(
    ("arguments", "said", "status"),
    [
        (("renew",), "give either --recovery-kit or --certificate", 2),
        (("renew", "--certificate", "/nowhere"), "cannot be read", 2),
        (("replace", "--recovery-kit", "/nowhere"), "cannot be read as a recovery kit", 2),
        (("certify", "/nowhere", "/tmp/x", "--recovery-kit", "/nowhere"), "cannot be read", 2),
    ],
)
def test_what_is_missing_is_said(
    made: Made, arguments: tuple[str, ...], said: str, status: int
) -> None:
    assert said in made.run("node", *arguments, status=status)


def test_request_of_another_node_is_not_certified(made: Made, tmp_path: Path) -> None:
    asked = str(tmp_path / "node.request")
    made.run("node", "request", asked)
    before = made.json("keys")["node_id"]
    made.run("node", "replace", "--recovery-kit", str(made.kit))
    now = made.json("keys")["node_id"]
    said = made.run(
        "node",
        "certify",
        asked,
        str(tmp_path / "c"),
        "--recovery-kit",
        str(made.kit),
        "--node",
        now,
        status=2,
    )
    assert before in said
    assert not (tmp_path / "c").exists()
