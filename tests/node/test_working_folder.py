"""A working folder that may not be used keeps only what is named relative to it from being used."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from node.errors import ConfigError
from node.system import safe_paths
from tests.integration.attacks.users import USER, folder_of_user, reaching_this_code

BIN = Path(sys.executable).parent
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
_NOT_NAMED = (
    'mkdir -p "$1/disk"; mount -t tmpfs none "$1/disk"; mkdir -m 700 "$1/disk/mine";'
    ' cd "$1/disk/mine";'
    ' umount -l "$1/disk"; shift; exec "$@"'
)
"""Leads to a folder of root's on a disk that was taken away: the system names it to nobody."""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def user() -> Iterator[Path]:
    with folder_of_user() as folder:
        yield folder


@pytest.fixture
def run(user: Path) -> Run:
    """Run a program as the user, in a working folder that may not be used."""
    shut = user / "shut"
    shut.mkdir(mode=0o700)

    def run(kind: str, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        become = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "env", "-i")
        lead = ("sh", "-ec", _NOT_NAMED, "lead", str(user)) if kind == "not named" else ()
        command = [*reaching_this_code(), *lead, *become, f"HOME={user}", str(BIN / program)]
        return subprocess.run(
            [*command, *arguments], capture_output=True, text=True, check=False, cwd=shut
        )

    return run


@as_root
@pytest.mark.parametrize("kind", ["shut", "not named"])
def test_commands_work_with_whole_paths_in_a_folder_that_may_not_be_used(
    run: Run, user: Path, kind: str
) -> None:
    (user / "words").write_text("a long passphrase 1")
    (user / "words").chmod(0o644)
    node = ("--home", str(user / "node"))
    options = ("--passphrase-file", str(user / "words"), "--name", "Clinic One")
    made = run(kind, "emix", *node, "init", "--recovery-kit", str(user / "kit"), *options)
    assert (made.returncode, made.stderr) == (0, "")
    shown = run(kind, "emix", *node, "keys", "--json")
    assert (shown.returncode, shown.stderr) == (0, "")
    asked = run(kind, "emix-directory", "--home", str(user / "none"), "facilities")
    assert asked.returncode == 2
    assert "is not a directory's home" in asked.stderr
    other = ("--home", str(user / "other"))
    for arguments in (
        ("emix", *other, "init", "--recovery-kit", "kit", *options),
        ("emix", "--home", "node", "keys"),
        ("emix", *node, "config", "check", "new.toml"),
        ("emix", *node, "export", "s1", "out"),
        ("emix", *node, "backup", "verify", "copy"),
        ("emix", *node, "peers", "pair", "--file", "theirs.emix"),
        ("emix-directory", "--home", "directory", "status"),
    ):
        done = run(kind, *arguments)
        assert done.returncode == 3, (arguments, done.stderr)
        assert "is in the working folder" in done.stderr
        assert "`cd` elsewhere, or give an absolute path" in done.stderr
    assert not (user / "other").exists()


def test_working_folder_that_is_gone_is_named_and_not_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    (tmp_path / "file").write_bytes(b"1")
    monkeypatch.chdir(gone)
    gone.rmdir()
    for use in (
        lambda: safe_paths.absolute(Path("out")),
        lambda: safe_paths.read_file(Path("out"), 10),
        lambda: safe_paths.real_folder(Path("out"), make=True),
        lambda: safe_paths.write_file(Path("out"), b""),
    ):
        with pytest.raises(ConfigError, match=r"is in the working folder, which .*`cd` elsewhere"):
            use()
    assert "`cd` elsewhere" in safe_paths.denial(Path("out"))
    assert safe_paths.read_file(tmp_path / "file", 10) == b"1"
    assert safe_paths.absolute(tmp_path) == tmp_path
