"""Restoring: into any empty folder, from a whole backup only, all of it or nothing."""

import os
from pathlib import Path

import pytest

from node.app import restoring
from node.app.home import Home, NewNode, make_home
from node.app.restoring import restore_home
from node.crypto.keyring import RecoveryKit
from node.errors import ConfigError, KeysError, NodeError, UsageError
from node.outside.copies import INVENTORY, BackupFolder
from tests.support.backups import make_node, names, open_home, write_backup
from tests.support.disks import as_root, mounted

Made = tuple[Path, RecoveryKit]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    home, kit = make_node(tmp_path)
    write_backup(home, BackupFolder(tmp_path / "backup"))
    return tmp_path / "backup", kit


def hold_restored(home: Path, backup: Path) -> None:
    """Check that a home is whole and opens, and that nothing else is in it."""
    wanted = {*names(backup), "host.key"} - {INVENTORY}
    assert set(names(home)) - {"lost+found"} == wanted
    context = open_home(Home(home))
    context.close()
    private = [p for p in (home, *home.rglob("*")) if p.name != "lost+found"]
    assert not any(p.stat().st_mode & 0o077 for p in private)
    assert (home / "host.key").stat().st_mode & 0o777 == 0o400


def error(backup: Path, home: Path, kit: RecoveryKit | None) -> NodeError:
    with pytest.raises(NodeError) as caught:
        restore_home(backup, Home(home), kit)
    return caught.value


def test_new_folder_becomes_the_home(made: Made, tmp_path: Path) -> None:
    backup, kit = made
    restored = restore_home(backup, Home(tmp_path / "new"), kit)
    assert restored.missing == []
    hold_restored(tmp_path / "new", backup)


def test_link_leads_to_the_home(made: Made, tmp_path: Path) -> None:
    backup, kit = made
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    restore_home(backup, Home(tmp_path / "link"), kit)
    assert (tmp_path / "link").is_symlink()
    hold_restored(tmp_path / "disk", backup)


def test_this_folder_becomes_the_home(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup, kit = made
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    restore_home(backup, Home(Path.cwd()), kit)
    hold_restored(Path.cwd(), backup)
    assert list(Path().iterdir()), "the shell is still in the home, and not in one that is gone"


@as_root
def test_mount_point_becomes_the_home(made: Made, tmp_path: Path) -> None:
    backup, kit = made
    with mounted(tmp_path / "disk") as disk:
        (disk / "lost+found").mkdir(mode=0o700)
        restore_home(backup, Home(disk), kit)
        hold_restored(disk, backup)
    with mounted(tmp_path / "disk") as disk:  # and a backup is read from one
        (disk / "lost+found").mkdir(mode=0o700)
        os.chown(disk / "lost+found", 4711, 4711)
        write_backup(Home(tmp_path / "home"), BackupFolder(disk))
        restore_home(disk, Home(tmp_path / "new"), kit)
    hold_restored(tmp_path / "new", backup)


@pytest.mark.parametrize("part", ["keyring", "emix.toml", "metadata.db", "chunks/*/*", INVENTORY])
def test_backup_that_lacks_a_part_is_refused_before_anything_is_written(
    made: Made, tmp_path: Path, part: str
) -> None:
    backup, kit = made
    next(backup.glob(part)).unlink()
    said = error(backup, tmp_path / "new", kit)
    assert isinstance(said, ConfigError | KeysError)
    assert part.partition("/")[0] in str(said)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("part", ["keyring", "emix.toml", "metadata.db", "chunks/*/*"])
def test_damage_that_is_met_while_copying_leaves_nothing(
    made: Made, tmp_path: Path, part: str
) -> None:
    backup, kit = made
    damaged = next(backup.glob(part))
    data = bytearray(damaged.read_bytes())
    data[-2] ^= 1
    damaged.write_bytes(data)
    (tmp_path / "there").mkdir()
    for target in (tmp_path / "new", tmp_path / "there"):
        error(backup, target, kit)
    assert not (tmp_path / "new").exists()
    assert not list((tmp_path / "there").iterdir())


def test_what_is_left_of_a_backup_is_restored_on_request(made: Made, tmp_path: Path) -> None:
    backup, kit = made
    first, second, _ = sorted((backup / "chunks").glob("*/*"))
    first.unlink()
    second.write_bytes(bytes(5000))
    restored = restore_home(backup, Home(tmp_path / "new"), kit, takes_incomplete=True)
    assert [problem.what for problem in restored.missing] == ["is missing", "is damaged"]
    assert len(list((tmp_path / "new" / "chunks").glob("*/*"))) == 1
    (backup / "keyring").unlink()
    with pytest.raises((ConfigError, KeysError)):
        restore_home(backup, Home(tmp_path / "other"), kit, takes_incomplete=True)
    assert not (tmp_path / "other").exists()


def test_failure_leaves_nothing_with_keys_behind(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it fails: the disk that is full, say, or a file system that syncs nothing."""
    backup, kit = made
    whole, calls = os.rename, 0

    def failing(*arguments: object, **options: object) -> None:
        nonlocal calls
        calls += 1
        if calls == fails_at:
            raise OSError(28, "no space")
        whole(*arguments, **options)  # type: ignore[arg-type]

    (tmp_path / "there").mkdir()
    monkeypatch.setattr(os, "rename", failing)
    for fails_at in range(1, 7):
        calls = 0
        assert "cannot be written" in str(error(backup, tmp_path / "there", kit))
        assert not list((tmp_path / "there").iterdir()), fails_at
    calls = fails_at = 0
    restore_home(backup, Home(tmp_path / "there"), kit)
    hold_restored(tmp_path / "there", backup)


def test_restore_after_one_that_was_killed_begins_anew(made: Made, tmp_path: Path) -> None:
    backup, kit = made
    new = tmp_path / "new"
    (new / ".restoring" / "chunks").mkdir(parents=True)
    (new / ".restoring" / "keyring").touch()
    (new / "chunks").mkdir()
    (new / "host.key").touch()
    restore_home(backup, Home(new), kit)
    hold_restored(new, backup)


def test_folder_that_is_not_empty_is_left_alone(made: Made, tmp_path: Path) -> None:
    backup, kit = made
    for name in ("keyring", "letter.txt"):
        (tmp_path / name.upper()).mkdir()
        (tmp_path / name.upper() / name).touch()
        assert "is not empty" in str(error(backup, tmp_path / name.upper(), kit))
        assert names(tmp_path / name.upper()) == [name]
    assert "only the last folder" in str(error(backup, tmp_path / "a" / "b", kit))
    assert "too long for a Unix socket" in str(error(backup, tmp_path / ("x" * 100), kit))


def test_kit_is_looked_at_before_anything_is_written(made: Made, tmp_path: Path) -> None:
    backup, _ = made
    assert isinstance(error(backup, tmp_path / "new", RecoveryKit.new()), KeysError)
    assert isinstance(error(backup, tmp_path / "new", None), UsageError)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_folder_that_cannot_be_changed_has_to_keep_others_out(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    backup, kit = made

    def refuse(*_: object) -> None:
        raise PermissionError(1, "not permitted")

    (tmp_path / "there").mkdir()
    (tmp_path / "there").chmod(mode)
    for name in ("chmod", "fchmod", "utime"):
        monkeypatch.setattr(os, name, refuse)
    if mode == 0o755:
        assert "without access rights" in str(error(backup, tmp_path / "there", kit))
        assert not list((tmp_path / "there").iterdir())
    else:
        restore_home(backup, Home(tmp_path / "there"), kit)
        hold_restored(tmp_path / "there", backup)


def test_home_with_a_passphrase_gets_no_host_key_beside_it(tmp_path: Path) -> None:
    kits = {}
    for name in ("mine", "other"):
        kit = tmp_path / f"{name}.kit"
        new = NewNode(name, kit, b"a passphrase of some length", "127.0.0.1:0", "127.0.0.1:0")
        make_home(Home(tmp_path / name), new)
        kits[name] = RecoveryKit.decode(kit.read_bytes())
    assert restoring._keys(tmp_path / "mine", kits["mine"]) == {}
    assert restoring._keys(tmp_path / "mine", None) == {}
    with pytest.raises(KeysError, match="does not open this home"):
        restoring._keys(tmp_path / "mine", kits["other"])
