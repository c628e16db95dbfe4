"""Paths that others may have laid: each component is looked at, and none is followed blindly."""

import grp
import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from node.errors import ConfigError, StoreFull
from node.system import safe_paths

OTHER = 4711
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")


@pytest.fixture
def base() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def test_missing_folder_is_made_for_this_user_alone(base: Path) -> None:
    before = os.umask(0)
    try:
        found = safe_paths.real_folder(base / "a", make=True, is_ours=True)
    finally:
        os.umask(before)
    assert found == (base / "a").resolve()
    assert (base / "a").stat().st_mode & 0o777 == 0o700


def test_only_the_last_folder_of_a_path_is_made(base: Path) -> None:
    """Where a disk is not mounted, what lies on it would be made on another."""
    with pytest.raises(
        ConfigError, match=f"{base}/disk does not exist, and only the last folder of"
    ):
        safe_paths.real_folder(base / "disk" / "folder" / "new", make=True)
    assert not list(base.iterdir())


def test_links_of_ours_are_walked_and_loops_end(base: Path) -> None:
    (base / "real" / "below").mkdir(parents=True)
    (base / "link").symlink_to("real")
    (base / "absolute").symlink_to(base / "link" / "below")
    (base / "loop").symlink_to("loop")
    assert safe_paths.real_folder(base / "absolute") == base / "real" / "below"
    assert safe_paths.real_folder(base / "link" / ".." / "real") == base / "real"
    with pytest.raises(OSError, match="symbolic links"):
        safe_paths.real_folder(base / "loop")


@as_root
@pytest.mark.parametrize("is_sticky", [False, True])
def test_link_of_another_user_is_not_walked(base: Path, is_sticky: bool) -> None:
    base.chmod(0o1777 if is_sticky else 0o755)
    (base / "mine").mkdir()
    (base / "link").symlink_to("mine")
    os.chown(base / "link", OTHER, OTHER, follow_symlinks=False)
    with pytest.raises(ConfigError, match="link belongs to another user"):
        safe_paths.real_folder(base / "link")


@pytest.mark.parametrize(
    ("mode", "is_safe"), [(0o755, True), (0o777, False), (0o757, False), (0o1777, True)]
)
def test_folder_that_others_may_write_leads_nowhere_unless_it_is_sticky(
    base: Path, mode: int, is_safe: bool
) -> None:
    (base / "above" / "mine").mkdir(parents=True)
    (base / "above").chmod(mode)
    if is_safe:
        assert safe_paths.real_folder(base / "above" / "mine", is_ours=True).is_dir()
        return
    with pytest.raises(ConfigError, match=r"can write in .*above"):
        safe_paths.real_folder(base / "above" / "mine")


@as_root
def test_group_counts_as_another_user_unless_it_is_the_owners_own(base: Path) -> None:
    folder = base / "folder"
    folder.mkdir()
    folder.chmod(0o775)
    assert safe_paths.real_folder(folder, is_ours=True) == folder  # root's own group
    os.chown(folder, 0, OTHER)
    with pytest.raises(ConfigError, match="can write in"):
        safe_paths.real_folder(folder)


@as_root
def test_group_that_is_another_users_first_is_not_the_owners_own(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = base / "folder"
    folder.mkdir()
    folder.chmod(0o775)
    other = pwd.struct_passwd(("other", "x", OTHER, 0, "", "/", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwall", lambda: [pwd.getpwuid(0), other])
    with pytest.raises(ConfigError, match="can write in"):
        safe_paths.real_folder(folder, is_ours=True)


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_file_is_written_whole_in_place_of_ours(base: Path, mode: int) -> None:
    for data in (b"first", b"second"):
        safe_paths.write_file(base / "file", data, mode)
        assert (base / "file").read_bytes() == data
    assert (base / "file").stat().st_mode & 0o777 == mode
    assert [p.name for p in base.iterdir()] == ["file"]
    with pytest.raises(ConfigError, match="exists already"):
        safe_paths.write_file(base / "file", b"third", is_new=True)
    assert (base / "file").read_bytes() == b"second"


def test_what_is_no_file_of_ours_is_not_replaced(base: Path) -> None:
    (base / "target").write_text("kept")
    (base / "link").symlink_to("target")
    os.mkfifo(base / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(ConfigError, match="not a file of yours"):
            safe_paths.write_file(base / name, b"x")
    assert (base / "target").read_text() == "kept"


def test_reading_is_bounded_and_wants_a_file(base: Path) -> None:
    (base / "file").write_bytes(b"12345")
    assert safe_paths.read_file(base / "file", 5) == b"12345"
    with pytest.raises(ConfigError, match="more than 4 bytes"):
        safe_paths.read_file(base / "file", 4)
    with pytest.raises(ConfigError, match="not a file"):
        safe_paths.read_file(Path("/dev/zero"), 4)
    os.mkfifo(base / "pipe")
    with pytest.raises(ConfigError, match="not a file"):
        safe_paths.read_file(base / "pipe", 4)


def test_what_is_given_on_a_descriptor_is_read() -> None:
    """`--passphrase-file <(...)` and /dev/stdin are this process's own."""
    script = (
        "from pathlib import Path; from node.system.safe_paths import read_file;"
        "print(read_file(Path('/dev/stdin'), 100))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input=b"secret\n", capture_output=True, timeout=60
    )
    assert done.stdout == b"b'secret\\n'\n", done.stderr


def test_room_is_held_with_a_reserve(base: Path) -> None:
    with safe_paths.folder(base) as (fd, real):
        safe_paths.check_room(fd, 0, 0, real)
        disk = os.fstatvfs(fd)
        with pytest.raises(StoreFull, match="has room for"):
            safe_paths.check_room(fd, disk.f_bavail * disk.f_frsize, 0, real)


def test_tree_with_anything_but_files_is_named(base: Path) -> None:
    (base / "below").mkdir()
    (base / "below" / "file").write_bytes(b"123")
    assert safe_paths.check_tree(base) == (1, 3)
    (base / "below" / "link").symlink_to("file")
    with pytest.raises(ConfigError, match="link is not a file"):
        safe_paths.check_tree(base)


@pytest.mark.parametrize("mode", [0o602, 0o666, pytest.param(0o660, marks=as_root)], ids=oct)
def test_tree_with_a_file_that_others_may_change_is_refused(base: Path, mode: int) -> None:
    (base / "below").mkdir()
    file = base / "below" / "keyring.json"
    file.write_bytes(b"123")
    if mode == 0o660:
        os.chown(file, -1, next(g.gr_gid for g in grp.getgrall() if g.gr_gid))
    file.chmod(mode)
    with pytest.raises(ConfigError, match=f"Other users can write to {file}.*chmod go-w {file}"):
        safe_paths.check_tree(base)
    file.chmod(0o644)
    assert safe_paths.check_tree(base) == (1, 3)


@contextmanager
def as_other() -> Iterator[None]:
    """Be an ordinary user for the time of the block."""
    groups = os.getgroups()
    os.setgroups([])
    os.seteuid(OTHER)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setgroups(groups)


@as_root
def test_only_a_part_of_a_home_of_ours_is_to_be_given_away(base: Path) -> None:
    base.chmod(0o755)
    home = base / "node"
    (home / "chunks").mkdir(parents=True, mode=0o700)
    for name in ("keyring", "emix.toml"):
        (home / name).touch(mode=0o400)
    for part in (base, home, home / "emix.toml"):
        os.chown(part, OTHER, OTHER)
    with as_other():
        assert safe_paths.denial(home / "keyring").endswith(f"chown {OTHER} {home}/keyring")
        assert safe_paths.denial(home / "chunks" / "aa" / "b").endswith(
            f"chown -R {OTHER} {home}/chunks"
        )
    os.chown(home, 0, 0)
    for mode in (0o700, 0o711):  # not to be entered; entered, with files that are not ours
        home.chmod(mode)
        with as_other():
            why = safe_paths.denial(home / "keyring")
        assert "belongs to root (uid 0)" in why
        assert "sudo -u root ..." in why
        assert "chown" not in why
