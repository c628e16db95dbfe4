"""Another user of this machine, for tests that run as root."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

OTHER = 4711
"""A user id that nobody has."""

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason="needs root and setpriv (Debian package util-linux), to be somebody else",
)


@contextmanager
def shared_folder() -> Iterator[Path]:
    """Make a folder that another user can reach, sticky as /tmp is."""
    folder = Path(tempfile.mkdtemp(prefix="emix-shared-", dir="/tmp"))
    folder.chmod(0o1777)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def as_other(*command: str) -> list[str]:
    """Return a command line that runs as the other user."""
    ids = (f"--reuid={OTHER}", f"--regid={OTHER}", "--clear-groups", "--inh-caps=-all")
    return ["setpriv", *ids, "--", *command]


def by_other(script: str, *arguments: str) -> str:
    """Run a shell script as the other user and return what it prints."""
    command = as_other("sh", "-c", script, "sh", *arguments)
    done = subprocess.run(command, capture_output=True, check=True, cwd="/", timeout=60)
    return done.stdout.decode()
