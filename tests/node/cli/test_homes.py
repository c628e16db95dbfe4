"""Which home a command works on, and what opens it: a file, a prompt, a kit."""

from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from node.app.home import Home, NewNode, make_home, unlock_root_key
from node.cli.homes import home_path, kit_from, passphrase_of
from node.cli.main import cli
from node.crypto.argon2 import FAST_FOR_TESTS
from node.crypto.keyring import RecoveryKit
from node.errors import ConfigError, KeysError, UsageError

PASSPHRASE = b"a long passphrase 1"


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home that a passphrase opens, beside its kit."""
    return made(tmp_path_factory.mktemp("locked"), PASSPHRASE)


def made(folder: Path, passphrase: bytes | None) -> Home:
    home = Home(folder / "home")
    address, kit = "127.0.0.1:0", folder / "kit.json"
    new = NewNode("Clinic", kit, passphrase, address, address, cost=FAST_FOR_TESTS)
    make_home(home, new)
    return home


def asked(work: Callable[[], object], typed: str | None = None) -> tuple[object, str]:
    """Return what work returns where a person types, or nobody can, and what is shown."""
    results: list[object] = []
    command = click.Command("work", callback=lambda: results.append(work()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "click.testing._NamedTextIOWrapper.isatty",
            lambda stream: stream.name == "<stdin>" and typed is not None,
        )
        done = CliRunner().invoke(command, [], input=typed)
    if done.exception is not None:
        raise done.exception
    return results[0], done.output


def path_of(*arguments: str) -> Path:
    """Return the home that a command line is about."""
    with cli.make_context("emix", [*arguments, "id"]) as root:
        command = click.Context(click.Command("id"), parent=root)
        return home_path(command)


def test_option_names_the_home_before_the_environment_and_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("EMIX_HOME", raising=False)
    assert path_of() == tmp_path / ".emix"
    monkeypatch.setenv("EMIX_HOME", "~/clinic")
    assert path_of() == tmp_path / "clinic"
    assert path_of("--home", "/srv/emix") == Path("/srv/emix")
    monkeypatch.setenv("EMIX_HOME", "")
    assert path_of() == tmp_path / ".emix"


def test_passphrase_is_read_from_the_file_though_the_home_is_locked(
    locked: Home, tmp_path: Path
) -> None:
    file = tmp_path / "passphrase"
    file.write_bytes(b"another one\r\n")
    assert passphrase_of(locked, str(file)) == b"another one"
    file.write_bytes(b"\n")
    with pytest.raises(UsageError, match="is empty; write a passphrase into it"):
        passphrase_of(locked, str(file))
    with pytest.raises(UsageError, match="none cannot be read"):
        passphrase_of(locked, str(tmp_path / "none"))


def test_locked_home_asks_at_a_terminal_and_does_not_show_what_is_typed(locked: Home) -> None:
    passphrase, shown = asked(lambda: passphrase_of(locked, None), "typed by hand\n")
    assert passphrase == b"typed by hand"
    assert "Passphrase:" in shown
    assert "typed by hand" not in shown


def test_locked_home_without_a_terminal_says_how_to_open_it(locked: Home) -> None:
    with pytest.raises(KeysError, match="--passphrase-file FILE, or at the prompt"):
        asked(lambda: passphrase_of(locked, None))


def test_home_with_a_host_key_or_without_keys_asks_for_nothing(tmp_path: Path) -> None:
    home = made(tmp_path, None)
    assert asked(lambda: passphrase_of(home, None), "typed\n") == (None, "")
    assert asked(lambda: passphrase_of(Home(tmp_path / "none"), None), "typed\n") == (None, "")


def test_kit_that_was_written_with_a_home_opens_it(locked: Home) -> None:
    unlock_root_key(locked, None, kit_from(str(locked.root.parent / "kit.json")))
    with pytest.raises(KeysError):
        unlock_root_key(locked, None, RecoveryKit.new())


def test_file_that_is_no_kit_is_refused_by_name(locked: Home, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none cannot be read as a recovery kit"):
        kit_from(str(tmp_path / "none"))
    with pytest.raises(UsageError, match="cannot be read as a recovery kit"):
        kit_from(str(tmp_path))
    with pytest.raises(KeysError, match="not a recovery kit"):
        kit_from(str(locked.root / "emix.toml"))
    large = tmp_path / "large"
    large.write_bytes(b"{" + b" " * 100_000 + b"}")
    with pytest.raises((UsageError, ConfigError, KeysError), match="large"):
        kit_from(str(large))
