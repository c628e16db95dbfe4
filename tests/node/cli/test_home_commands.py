"""`emix init`, `serve`, `passphrase` and `restore`: what is made, what opens it, what is next."""

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from node.app import node as app
from node.app.home import Home, unlock, unlock_root_key
from node.crypto import argon2
from node.crypto.digests import sha256
from node.crypto.keyring import RecoveryKit
from node.errors import ConfigError, KeysError, StoreLocked, UsageError
from node.outside.copies import BackupFolder
from tests.support.answering import run_emix, widest
from tests.support.backups import make_node, write_backup

FIRST, SECOND = "a long passphrase 1", "another passphrase 2"


@pytest.fixture(autouse=True)
def fast_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have keys come from passphrases at once; `node/crypto/argon2.py` has tests of its own."""
    monkeypatch.setattr(argon2, "stretch", lambda passphrase, salt, _: sha256(passphrase + salt))


class Place:
    """A folder with two passphrases in files, for a home that is to be made."""

    def __init__(self, folder: Path) -> None:
        self.home, self.kit = Home(folder / "home"), folder / "kit.json"
        self.first, self.second = folder / "first", folder / "second"
        self.first.write_text(f"{FIRST}\n")
        self.second.write_text(f"{SECOND}\n")

    def run(self, *arguments: str, typed: str | None = None) -> Result:
        return run_emix(self.home.root, *arguments, typed=typed)

    def init(self, *options: str, typed: str | None = None) -> Result:
        kit = ("--recovery-kit", str(self.kit))
        return self.run("init", "--name", "Great Falls", *kit, *options, typed=typed)

    def opens_with(self, passphrase: str | None) -> bool:
        """Return whether a passphrase, or the host key for None, opens the home."""
        try:
            unlock(self.home, None if passphrase is None else passphrase.encode())
        except KeysError:
            return False
        return True


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a home, its kit, and a backup of it."""
    folder = tmp_path_factory.mktemp("made")
    home, _ = make_node(folder)
    write_backup(home, BackupFolder(folder / "backup"))
    return folder


def test_made_home_opens_with_its_host_key_and_says_what_is_next(place: Place) -> None:
    done = place.init("--host-key", "--peer-listen", "127.0.0.1:7")
    assert (done.exit_code, done.stderr) == (0, "")
    facility = str(unlock(place.home, None).signer.facility_id)
    assert done.stdout.splitlines() == [
        f"Made a node in {place.home.root}.",
        f"Facility ID: {facility}",
        f"Keep {place.kit} offline: it recovers the keys and speaks for the facility.",
        f"Next: look at {place.home.config}, then `emix --home {place.home.root} serve`.",
    ]
    assert 'peer = "127.0.0.1:7"' in place.home.config.read_text()
    kit = RecoveryKit.decode(place.kit.read_bytes())
    unlock_root_key(place.home, None, kit)
    assert place.kit.stat().st_mode & 0o077 == 0


def test_next_command_names_a_home_only_if_it_is_not_the_usual_one(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    usual = run_emix(
        tmp_path / ".emix", "init", "--name", "A", "--host-key", "--recovery-kit", str(place.kit)
    )
    assert usual.stdout.endswith(", then `emix serve`.\n")
    other = tmp_path / "Great Falls"
    kit = str(tmp_path / "other.json")
    done = run_emix(other, "init", "--name", "B", "--host-key", "--recovery-kit", kit)
    assert done.stdout.endswith(f", then `emix --home {shlex.quote(str(other))} serve`.\n")


def test_made_home_in_json_has_whole_paths(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place.kit = Path("kit.json")
    done = place.init("--host-key", "--json")
    assert json.loads(done.stdout) == {
        "facility_id": str(unlock(place.home, None).signer.facility_id),
        "home": str(place.home.root),
        "recovery_kit": f"{tmp_path}/kit.json",
    }


def test_passphrase_is_typed_twice_and_not_shown(place: Place) -> None:
    typed = f"{FIRST}\n{SECOND}\n{FIRST}\n{FIRST}\n"
    done = place.init(typed=typed)
    assert done.exit_code == 0, done.output
    assert "do not match" in done.output
    assert FIRST not in done.output
    assert place.opens_with(FIRST)


@pytest.mark.parametrize(
    ("options", "status", "text"),
    [
        (["--host-key", "--passphrase-file", "first"], 2, "choose either --host-key or --pass"),
        ([], 2, "choose how to unlock the home: --passphrase-file FILE or --host-key"),
        (["--passphrase-file", "none"], 2, "none cannot be read"),
        (["--host-key", "--peer-listen", "nowhere"], 3, "[listen] peer must be an address"),
        (["--host-key", "--chunks", "ftp://x"], 3, "[store] chunks must be"),
        (["--host-key", "--name", ""], 3, "[facility] display_name"),
    ],
)
def test_init_that_cannot_be_meant_makes_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, options: list[str], status: int, text: str
) -> None:
    monkeypatch.chdir(place.home.root.parent)
    done = place.init(*options)
    assert (done.exit_code, text in done.stderr) == (status, True), done.output
    assert not place.home.keyring.exists()
    assert not place.kit.exists()


def test_home_is_not_made_twice(place: Place) -> None:
    place.init("--host-key")
    before = place.home.keyring.read_bytes()
    place.kit = place.kit.with_name("second.json")
    done = place.init("--host-key")
    assert done.exit_code == ConfigError.exit_code
    assert f"{place.home.root} is a node's home already" in done.stderr
    assert place.home.keyring.read_bytes() == before
    assert not place.kit.exists()


def test_node_is_started_in_that_home_with_what_opens_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[Any, ...]] = []
    monkeypatch.setattr(app, "run_node", lambda *given: started.append(given))
    place.init("--passphrase-file", str(place.first))
    assert place.run("serve", "--passphrase-file", str(place.second)).exit_code == 0
    assert place.run("serve", typed="typed by hand\n").exit_code == 0
    done = place.run("serve")
    assert done.exit_code == KeysError.exit_code
    assert "a passphrase is needed: --passphrase-file FILE" in done.stderr
    assert started == [(place.home, SECOND.encode()), (place.home, b"typed by hand")]


def test_new_passphrase_replaces_the_host_key(place: Place) -> None:
    place.init("--host-key")
    done = place.run("passphrase", "--new-passphrase-file", str(place.second))
    assert done.exit_code == 0
    assert done.stdout.startswith("The new passphrase is set. Start the node with `")
    assert not place.home.host_key.exists()
    assert place.opens_with(SECOND)


def test_lost_passphrase_is_replaced_with_the_kit(place: Place) -> None:
    place.init("--passphrase-file", str(place.first))
    assert not place.home.host_key.exists()
    before = place.home.keyring.read_bytes()
    change = ("passphrase", "--new-passphrase-file", str(place.second), "--json")
    done = place.run(*change, "--passphrase-file", str(place.second))
    assert done.exit_code == KeysError.exit_code
    assert place.home.keyring.read_bytes() == before
    done = place.run(*change, "--recovery-kit", str(place.kit))
    assert json.loads(done.stdout) == {"home": str(place.home.root)}
    assert place.opens_with(SECOND)
    assert not place.opens_with(FIRST)


def test_host_key_stays_if_no_new_passphrase_is_given(place: Place) -> None:
    place.init("--host-key")
    (empty := place.first).write_bytes(b"\n")
    for options, status, text in (
        ([], UsageError.exit_code, "the new passphrase is needed: --new-passphrase-file FILE"),
        (["--new-passphrase-file", str(empty)], UsageError.exit_code, "is empty"),
        (["--recovery-kit", str(empty)], KeysError.exit_code, "not a recovery kit"),
    ):
        done = place.run("passphrase", *options)
        assert (done.exit_code, text in done.stderr) == (status, True), done.output
    done = place.run("passphrase", typed="short\nshort\n")
    assert done.exit_code == KeysError.exit_code
    assert place.opens_with(None)


def test_passphrase_of_a_home_in_use_is_not_changed(place: Place) -> None:
    place.init("--host-key")
    with place.home.locked():
        done = place.run("passphrase", "--new-passphrase-file", str(place.second))
    assert done.exit_code == StoreLocked.exit_code
    assert place.opens_with(None)
    done = run_emix(place.home.root.parent / "none", "passphrase")
    assert (done.exit_code, "is not a node's home" in done.stderr) == (3, True)


def test_restored_home_opens_and_its_store_is_to_be_checked(made: Path, tmp_path: Path) -> None:
    home = tmp_path / "new"
    kit = ("--recovery-kit", str(made / "kit"))
    done = run_emix(home, "restore", str(made / "backup"), *kit)
    assert (done.exit_code, done.stderr) == (0, "")
    count, following = done.stdout.splitlines()
    assert count.endswith(f" in {home}.")
    start = f"emix --home {home}"
    assert following == f"Next: `{start} serve`, then `{start} store check`."
    assert widest(count) <= 80 + len(str(home))
    before = unlock(Home(made / "home"), None).signer.facility_id
    assert unlock(Home(home), None).signer.facility_id == before


def test_restored_home_in_json_counts_files_and_bytes(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    kit = ("--recovery-kit", str(made / "kit"))
    done = run_emix(Path("new"), "restore", str(made / "backup"), *kit, "--json")
    shown = json.loads(done.stdout)
    assert (shown["home"], shown["missing"]) == (f"{tmp_path}/new", [])
    assert shown["files"] > 3
    assert shown["bytes"] > 3 * 5000


def test_backup_of_a_home_with_a_host_key_needs_the_kit(made: Path, tmp_path: Path) -> None:
    done = run_emix(tmp_path / "new", "restore", str(made / "backup"))
    assert done.exit_code == UsageError.exit_code
    assert "--recovery-kit" in done.stderr
    assert not (tmp_path / "new").exists()


def test_incomplete_backup_is_restored_only_on_request_and_lists_what_is_missing(
    made: Path, tmp_path: Path
) -> None:
    backup, home = tmp_path / "backup", tmp_path / "new"
    shutil.copytree(made / "backup", backup)
    first, second, _ = sorted((backup / "chunks").glob("*/*"))
    first.unlink()
    second.write_bytes(bytes(5000))
    command = ("restore", str(backup), "--recovery-kit", str(made / "kit"))
    done = run_emix(home, *command)
    assert done.exit_code == ConfigError.exit_code
    assert "--incomplete" in done.stderr
    assert not home.exists()
    done = run_emix(home, *command, "--incomplete")
    assert done.exit_code == 1
    problems = [line for line in done.stdout.splitlines() if line.startswith("PROBLEM  ")]
    assert problems == [
        f"PROBLEM  {first.relative_to(backup)} is missing",
        f"PROBLEM  {second.relative_to(backup)} is damaged",
    ]
    assert f"in {home}.\n" in done.stdout
    done = run_emix(tmp_path / "other", *command, "--incomplete", "--json")
    assert done.exit_code == 1
    assert [one["problem"] for one in json.loads(done.stdout)["missing"]] == [
        "is missing",
        "is damaged",
    ]
