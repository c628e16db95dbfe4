"""What commands say where something is wrong leads to the next step, and to no other."""

import grp
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from emix.admin.v1 import admin_pb2 as pb

from directory_service.cli import cli as directory_cli
from node.cli.main import cli
from node.domain.ids import FacilityId
from tests.integration.attacks.texts import Handler, node_that
from tests.integration.attacks.users import folder_of_user

SERVICES = list(pb.DESCRIPTOR.services_by_name.values())
PASSPHRASE, WRONG = "a long passphrase 1", "another passphrase 2"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    (folder / "right").write_text(PASSPHRASE)
    (folder / "wrong").write_text(WRONG)
    options = ("--recovery-kit", str(folder / "kit"), "--passphrase-file", str(folder / "right"))
    done = emix(folder / "home", "init", "--name", "Clinic One", *options)
    assert done.exit_code == 0, done.output
    assert f"emix --home {folder / 'home'} serve" in done.output
    return folder / "home"


def emix(home: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["--home", str(home), *arguments])


def said(home: Path, *arguments: str) -> str:
    done = emix(home, *arguments)
    assert done.exit_code != 0
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.output


def test_wrong_passphrase_is_called_wrong(home: Path) -> None:
    folder = home.parent
    text = said(home, "serve", "--passphrase-file", str(folder / "wrong"))
    assert "the passphrase is wrong" in text
    assert "emix passphrase --recovery-kit FILE" in text


def test_lost_configuration_is_not_to_be_made_by_init(home: Path) -> None:
    config = home / "emix.toml"
    kept = config.read_text()
    config.unlink()
    try:
        text = said(home, "serve", "--passphrase-file", str(home.parent / "right"))
    finally:
        config.write_text(kept)
    assert "restore the file" in text
    assert "cannot recreate it" in text
    assert "is not a home" in said(home.parent / "none", "serve")


@pytest.mark.parametrize(
    ("kit", "text"),
    [
        ("kit", "exists, and may be another node's only kit"),
        (".", "is a folder; name a file in it"),
        ("none/kit", "is not a folder; make it, or mount its disk"),
    ],
)
def test_recovery_kit_at_a_wrong_place_says_why_it_is_wrong(
    home: Path, kit: str, text: str
) -> None:
    folder = home.parent
    options = ("--recovery-kit", str(folder / kit), "--passphrase-file", str(folder / "right"))
    assert text in said(folder / "second", "init", "--name", "Clinic Two", *options)


def test_wrong_file_for_a_recovery_kit_is_named_for_what_it_is(home: Path) -> None:
    text = said(home, "passphrase", "--recovery-kit", str(home / "keyring"))
    assert "not a recovery kit" in text
    assert "it is the keyring of a home" in text
    text = said(home, "passphrase", "--recovery-kit", str(home.parent / "right"))
    assert "not a recovery kit, which `emix init --recovery-kit` wrote" in text


def test_restore_names_the_home_that_is_not_empty_and_how_to_name_another(home: Path) -> None:
    text = said(home, "restore", str(home))
    assert f"{home} is not empty" in text
    assert f"emix --home DIR restore {home}" in text


@pytest.mark.parametrize("command", [("backup", "verify"), ("restore",)])
def test_backup_that_is_not_there_is_not_called_half(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    text = said(tmp_path / "new", *command, str(tmp_path / "disk" / "copy"))
    assert f"{tmp_path}/disk/copy is not there; is its disk mounted?" in text


def test_help_is_a_command() -> None:
    done = CliRunner().invoke(cli, ["help"])
    assert (done.exit_code, "Commands:" in done.output) == (0, True)
    done = CliRunner().invoke(cli, ["help", "held", "release"])
    assert (done.exit_code, "Release held instances" in done.output) == (0, True)
    done = CliRunner().invoke(cli, ["help", "nothing"])
    assert (done.exit_code, "No such command 'nothing'" in done.output) == (2, True)


def listing(*peers: pb.Peer) -> Callable[[Any], Handler]:
    """Return what makes the handlers of a node that has paired with these."""

    def handlers(method: Any) -> Handler:
        async def answer(call: Any) -> pb.ListPeersResponse | None:
            assert method.name == "ListPeers", "nothing else is to be asked for"
            await call.write(pb.ListPeersResponse(peers=peers))
            return None

        return answer

    return handlers


def peer_of(number: int, name: str) -> pb.Peer:
    return pb.Peer(facility_id=str(FacilityId(bytes([number] * 32))), display_name=name)


def test_what_asks_says_so_where_nobody_answers(tmp_path: Path) -> None:
    (tmp_path / "keyring").touch()
    peer = peer_of(1, "Billings Hospital")
    with node_that(listing(peer), tmp_path / "admin.sock", SERVICES):
        text = said(tmp_path, "peers", "remove", "Billings Hospital")
        assert "cannot ask here: add --yes" in text
        done = CliRunner().invoke(
            cli, ["--home", str(tmp_path), "peers", "remove", peer.facility_id[:23]], input="n\n"
        )
    assert (done.exit_code, "nothing was done" in done.output) == (1, True)
    assert f"Remove Billings Hospital, Facility ID {peer.facility_id}?" in done.output


def test_facilities_of_one_name_are_told_by_their_whole_ids(tmp_path: Path) -> None:
    """Before anything is asked, and in a list that goes nowhere but to a script."""
    (tmp_path / "keyring").touch()
    peers = [peer_of(1, "Billings Hospital"), peer_of(2, "Billings  hospital")]
    removed = peer_of(3, "Billings Hospital")
    removed.state = "removed"
    with node_that(listing(*peers, removed), tmp_path / "admin.sock", SERVICES):
        text = said(tmp_path, "peers", "remove", "Billings Hospital")
        listed = emix(tmp_path, "peers").output
    assert "2 facilities have this name; use the Facility ID" in text
    assert "Remove " not in text
    for peer in peers:
        assert peer.facility_id in text
        assert peer.facility_id in listed
    assert removed.facility_id not in text


OWNER, BOB, GROUP = 64321, 64322, 64323


@contextmanager
def as_user(number: int, *groups: int) -> Iterator[None]:
    """Be an ordinary user for the time of the block."""
    before = os.getgroups()
    os.setgroups(groups)
    os.seteuid(number)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setgroups(before)


@pytest.fixture
def theirs() -> Iterator[Path]:
    """A node's home that belongs to another user, in a folder that everybody enters."""
    with folder_of_user() as folder:
        folder.chmod(0o755)
        home = folder / "node"
        home.mkdir(mode=0o700)
        for name in ("keyring", "emix.toml", "directory.toml"):
            (home / name).touch(mode=0o600)
        for path in (home, *home.iterdir()):
            os.chown(path, OWNER, OWNER)
        yield home


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user for a while")
def test_another_users_home_is_not_to_be_given_away(
    theirs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sudo = f"sudo -u '#{OWNER}'"
    with as_user(BOB):
        text = said(theirs, "status")  # before the node's first start
        assert "only that user and root may use it" in text
        assert f"{sudo} emix ..." in text
        for command in (("keys",), ("config", "check"), ("serve",)):
            text = said(theirs, *command)
            assert f"belongs to uid {OWNER}" in text or "another user" in text
            assert sudo in text
            assert "chown" not in text
    os.chown(theirs, OWNER, GROUP)
    theirs.chmod(0o710)
    people = ["somebody"]
    known = grp.struct_group(("gfc-admins", "x", GROUP, people))
    monkeypatch.setattr(grp, "getgrgid", lambda _: known)
    with as_user(BOB):
        text = said(theirs, "status")
        assert f"{BOB} is not in the group gfc-admins" in text
        assert f"usermod -aG gfc-admins {BOB}" in text
        people.append(str(BOB))
        assert "log in again" in said(theirs, "peers")
    with as_user(BOB, GROUP):
        start = f"start it: {sudo} emix --home {theirs} serve"
        assert start in said(theirs, "status")
        text = said(theirs, "keys")
        assert sudo in text
        assert "chown" not in text
    theirs.chmod(0o755)
    with as_user(BOB):
        done = CliRunner().invoke(directory_cli, ["--home", str(theirs), "status"])
        assert f"start it: {sudo} emix-directory --home {theirs} serve" in done.output
