"""An ordinary user for the processes of a test, where the tests run as root."""

import os
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

USER = 64321
_ROOT = Path(__file__).resolve().parents[3]


@cache
def as_user() -> tuple[str, ...]:
    """Return what runs a command as an ordinary user; nothing, if the tests run as one."""
    if os.geteuid() != 0:
        return ()
    become = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups")
    prefix = (*reaching_this_code(), *become)
    command = [*prefix, sys.executable, "-I", "-c", "import node.app"]
    if subprocess.run(command, capture_output=True, check=False, cwd="/").returncode != 0:
        pytest.skip("no ordinary user may run this installation's code")
    return prefix


@cache
def reaching_this_code() -> tuple[str, ...]:
    """Return what has root run a command that becomes another user, who reaches this code.

    Python and this checkout may lie in a folder that only root enters, its home for example. The
    command then sees another folder there, with nothing but these in it.
    """
    script = "; ".join([*_open_folders(), 'exec "$@"'])
    return ("unshare", "--mount", "sh", "-ec", script, "as-user")


def _open_folders() -> list[str]:
    """Return the commands that put what is needed where everybody may go."""
    hidden: dict[Path, set[Path]] = {}
    for needed in {Path(sys.base_prefix), Path(sys.prefix), _ROOT}:
        for folder in reversed(needed.parents):
            if not folder.stat().st_mode & stat.S_IXOTH:
                hidden.setdefault(folder, set()).add(needed)
                break
    commands = []
    for folder, needed_there in hidden.items():
        opened = shlex.quote(str(folder))
        commands += ["stage=$(mktemp -d)", f"mount --bind {opened} $stage"]
        commands.append(f"mount -t tmpfs -o mode=755 none {opened}")
        for path in needed_there:
            there = shlex.quote(str(path))
            commands += [
                f"mkdir -p {there}",
                f"mount --bind $stage/{shlex.quote(str(path.relative_to(folder)))} {there}",
            ]
        commands += ["umount $stage", "rmdir $stage"]
    return commands


@contextmanager
def folder_of_user() -> Iterator[Path]:
    """Make a folder that the user owns and reaches: pytest's own are root's alone."""
    folder = Path(tempfile.mkdtemp(prefix="emix-user-"))
    try:
        if os.geteuid() == 0:
            os.chown(folder, USER, USER)
        yield folder
    finally:
        shutil.rmtree(folder)
