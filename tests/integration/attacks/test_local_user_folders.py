"""Another user of this machine owns folders that emix is asked to write to, or to read from."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from node.dicom.archive_reader import Unreadable
from node.dicom.media import find_files
from tests.integration.attacks.folders import (
    OTHER,
    as_other,
    by_other,
    needs_root,
    shared_folder,
)
from tests.support.dicom_files import study_uid, write_study
from tests.support.hostile import HostilePeer
from tests.support.nodes import CommandFailed, Directory, Node

pytestmark = [pytest.mark.integration, needs_root]
STUDY = 950

# Exchanges the hidden folder for one with files of its own, as soon as it is there.
_SWAP = """
import os, sys
out = sys.argv[1]
partial, swapped = os.path.join(out, ".emix-partial"), out + "-theirs"
os.makedirs(os.path.join(swapped, "SE000001"))
os.chmod(swapped, 0o777)
for n in range(1, 41):
    path = os.path.join(swapped, "SE000001", f"IM{n:06d}")
    open(path, "w").close()
    os.chmod(path, 0o666)
print("ready", flush=True)
while not os.path.exists(partial):
    pass
os.rename(partial, os.path.join(out, ".away"))
os.rename(swapped, partial)
"""


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("victim")
    node = Node(folder, "node", "Victim Hospital")
    node.make()
    node.start()
    node.run("import", str(write_study(folder / "s", STUDY, 40, size=256)))
    try:
        yield node
    finally:
        node.stop()


@pytest.fixture
def shared() -> Iterator[Path]:
    with shared_folder() as folder:
        yield folder


@pytest.fixture
def theirs(shared: Path) -> Path:
    """A folder that the other user made, into which everybody may write."""
    by_other('umask 0; mkdir "$1"', str(shared / "theirs"))
    return shared / "theirs"


def test_images_exported_into_a_folder_of_another_user_are_not_read_by_them(
    victim: Node, theirs: Path
) -> None:
    for n in range(8):
        out = theirs / f"out{n}"
        by_other('umask 0; mkdir "$1"', str(out))
        swap = subprocess.Popen(
            as_other(sys.executable, "-c", _SWAP, str(out)), stdout=subprocess.PIPE, cwd="/"
        )
        assert swap.stdout is not None
        try:
            assert swap.stdout.readline() == b"ready\n"
            with suppress(CommandFailed):
                victim.run("export", study_uid(STUDY), str(out))
        finally:
            swap.kill()
            swap.wait()
            swap.stdout.close()
        leaked = by_other('find "$1" -type f -size +0 -readable || true', str(out))
        assert leaked == ""


@pytest.mark.parametrize("mode", [0o777, 0o775], ids=["everybody", "a-group"])
def test_nothing_is_exported_where_others_may_write(victim: Node, shared: Path, mode: int) -> None:
    above = shared / "above"
    above.mkdir()
    above.chmod(mode)
    subprocess.run(["chgrp", str(OTHER), str(above)], check=True)
    for out in (above, above / "new"):
        with pytest.raises(CommandFailed, match="Other users can write in"):
            victim.run("export", study_uid(STUDY), str(out))
    assert not list(above.iterdir())


def test_export_is_for_its_user_alone(victim: Node, shared: Path) -> None:
    victim.run("export", study_uid(STUDY), str(shared / "new"))
    modes = {p.stat().st_mode & 0o777 for p in (shared / "new").rglob("*") if p.is_file()}
    assert modes == {0o600}
    folders = [shared / "new", *(p for p in (shared / "new").rglob("*") if p.is_dir())]
    assert {p.stat().st_mode & 0o777 for p in folders} == {0o700}


def test_no_file_is_written_through_a_link_of_another_user(victim: Node, theirs: Path) -> None:
    kept = theirs.parent / "kept"
    kept.write_text("mine")
    by_other('ln -s "$1" "$2"; mkdir "$3"', str(kept), str(theirs / "id"), str(theirs / "d"))
    with pytest.raises(CommandFailed, match="another user"):
        victim.run("id", "--no-qr", "--export", str(theirs / "id"))
    assert kept.read_text() == "mine"


def test_every_file_that_is_written_wants_a_path_of_its_own(
    victim: Node, theirs: Path, tmp_path: Path
) -> None:
    directory = Directory(tmp_path)
    directory.make()
    new = Node(tmp_path, "new", "New Clinic")
    make = ("init", "--name", "New Clinic", "--host-key")
    token = ("token", "create", "X", "--network-key", str(directory.key))
    commands: list[tuple[Node | Directory, tuple[str, ...]]] = [
        (victim, ("backup", str(theirs / "backup"))),
        (victim, ("id", "--no-qr", "--export", str(theirs / "id"))),
        (new, (*make, "--recovery-kit", str(theirs / "kit"))),
        (Node(theirs, "home", "X"), (*make, "--recovery-kit", str(tmp_path / "kit"))),
        (directory, (*token, "--out", str(theirs / "letter"))),
        (
            directory,
            (
                *("list", "key", "--network-key", str(directory.key)),
                *("--out", str(theirs / "list-key")),
            ),
        ),
    ]
    for server, command in commands:
        with pytest.raises(CommandFailed, match="another user"):
            server.run(*command)
    assert not list(theirs.iterdir())
    assert not new.home.exists()


def test_home_in_a_folder_that_others_may_write_is_not_used(tmp_path: Path) -> None:
    with shared_folder() as shared:
        node = Node(shared, "node", "Movable Clinic")
        node.kit = tmp_path / "kit"
        node.make()
        node.start()
        try:
            shared.chmod(0o777)  # not sticky any more: the home could be exchanged
            with pytest.raises(CommandFailed, match="Other users can write in"):
                node.run("status")
        finally:
            node.stop()
        with pytest.raises(CommandFailed, match="Other users can write in"):
            node.run("serve")


def test_restore_copies_no_link_of_another_user(victim: Node, theirs: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("not theirs")
    victim.run("backup", str(tmp_path / "backup"))
    (tmp_path / "backup" / "emix.toml").unlink()
    (tmp_path / "backup" / "emix.toml").symlink_to(secret)
    new = Node(tmp_path, "restored", "X")
    with pytest.raises(CommandFailed):
        new.run("restore", str(tmp_path / "backup"), "--recovery-kit", str(victim.kit))
    assert not new.home.exists()


def test_folder_exchanged_while_it_is_imported_leads_nowhere(tmp_path: Path) -> None:
    write_study(tmp_path / "cd" / "sub", 951, 1)
    private = write_study(tmp_path / "private", 952, 1)
    found = list(find_files(tmp_path / "cd"))
    (tmp_path / "cd" / "sub").rename(tmp_path / "cd" / "away")
    (tmp_path / "cd" / "sub").symlink_to(private)
    with pytest.raises(Unreadable):
        found[0].open()


@pytest.mark.parametrize("command", [("receipts", "verify"), ("peers", "pair")])
def test_pipe_in_place_of_a_file_blocks_nobody(
    victim: Node, theirs: Path, command: tuple[str, ...]
) -> None:
    by_other('mkfifo "$1"', str(theirs / "pipe"))
    done = subprocess.run(
        victim.command(*command, str(theirs / "pipe")), capture_output=True, timeout=60
    )
    assert done.returncode in (2, 3)
    assert b"is not a file" in done.stderr


def test_file_called_like_a_facility_is_not_taken_for_it(victim: Node, tmp_path: Path) -> None:
    meant, other = HostilePeer(tmp_path, "meant"), HostilePeer(tmp_path, "other")
    folder = tmp_path / "folder"
    folder.mkdir()
    names = [str(meant.facility), str(meant.facility).replace("-", "")]
    for name in names:
        (folder / name).write_bytes(other.statements())

    def pair(*arguments: str) -> int:
        command = victim.command("peers", "pair", *arguments)
        environment = {**os.environ, "PYTHONPATH": f"{Path.cwd()}:{Path.cwd() / 'proto'}"}
        return subprocess.run(
            command, capture_output=True, cwd=folder, env=environment, timeout=60
        ).returncode

    def paired() -> set[str]:
        return {p["display_name"] for p in victim.json("peers")["peers"]}

    for name in names:
        assert pair(name) != 0
        assert "other" not in paired()
    assert pair(f"./{names[0]}") == 0
    victim.run("peers", "remove", "other", "--yes")
    assert pair("--file", names[0], "--restore-removed") == 0
    assert "other" in paired()
