"""The home that a command works on, and the secrets that unlock it."""

import shlex
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from node.errors import KeysError, UsageError
from node.system import safe_paths
from node.terminal.commands import home_of
from node.terminal.passphrases import passphrase_in, prompted

if TYPE_CHECKING:
    from node.app.home import Home
    from node.crypto.keyring import RecoveryKit

DEFAULT_HOME = "~/.emix"

_MOST_SECRET_BYTES = 64 * 1024


def home_path(context: click.Context) -> Path:
    """Return the home that the command is about."""
    return home_of(context.find_root().params.get("home") or DEFAULT_HOME, "EMIX_HOME")


def passphrase_of(home: "Home", file: str | None) -> bytes | None:
    """Return the passphrase from a file or the prompt; None where a host key serves."""
    from node.app.home import needs_passphrase

    passphrase = passphrase_in(file)
    if passphrase is None and home.keyring.exists() and needs_passphrase(home):
        needed = KeysError("a passphrase is needed: --passphrase-file FILE, or at the prompt")
        passphrase = prompted("Passphrase", needed)
    return passphrase


def kit_from(path: str) -> "RecoveryKit":
    """Return the recovery kit in a file; `UsageError` or `KeysError` if it is none."""
    from node.crypto.keyring import RecoveryKit

    try:
        return RecoveryKit.decode(safe_paths.read_file(Path(path), _MOST_SECRET_BYTES))
    except OSError as exc:
        raise UsageError(f"{path} cannot be read as a recovery kit ({exc.strerror})") from exc


def emix_command(home: Path) -> str:
    """Return how commands for a home begin: with --home, where it is not the usual one."""
    is_usual = False
    with suppress(RuntimeError):  # a user without a home directory has no usual one
        is_usual = home.absolute() == Path(DEFAULT_HOME).expanduser()
    return "emix" if is_usual else shlex.join(["emix", "--home", str(home)])
