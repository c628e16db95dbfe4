"""Commands whose standard streams are closed or full end with a line, not with a trace."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def run(module: str, *arguments: str, stdin: int | None = None, stdout: int) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("module", ["node", "directory_service"])
def test_full_disk_behind_standard_output_is_an_error(module: str) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        status, said = run(module, "--help", stdout=full)
    finally:
        os.close(full)
    assert status == 1
    assert "the output cannot be written (No space left on device)" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["init", "--name", "Clinic", "--recovery-kit", "kit"],
        ["join", "-"],
        ["delete", "1.2"],
    ],
)
def test_closed_standard_input_is_an_error(arguments: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "node", "--home", str(tmp_path / "home"), *arguments]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("emix:")
