"""A local user who leaves files where somebody runs emix, or where the node was started."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.dicom_files import make_instance
from tests.support.nodes import Node

PASSPHRASE = "a passphrase of the test"
# What children of ours are called, what they load, and what Python itself looks for.
_BAIT = (
    "node/__init__.py",
    "node/crypto/__init__.py",
    "node/crypto/argon2.py",
    "node/dicom/__init__.py",
    "node/dicom/worker.py",
    "node/dicom/file_set.py",
    "sitecustomize.py",
    "usercustomize.py",
    "pydicom.py",
    "nacl.py",
    "json.py",
)
_TRAP = """
import sys
with open({log!r}, "a") as log:
    log.write(__file__ + " " + repr(sys.argv) + "\\n")
"""


class Stick:
    """A folder full of files that must not run, and the list of those that did."""

    def __init__(self, folder: Path, names: tuple[str, ...]) -> None:
        self.folder = folder / "stick"
        self.log = folder / "ran"
        for name in names:
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_TRAP.format(log=str(self.log)))

    @property
    def ran(self) -> str:
        return self.log.read_text() if self.log.exists() else ""


@pytest.fixture
def stick(tmp_path: Path) -> Stick:
    return Stick(tmp_path, _BAIT)


def emix(home: Path, *arguments: str) -> list[str]:
    """Return the command as it is installed."""
    return [str(Path(sys.executable).with_name("emix")), "--home", str(home), *arguments]


def run_in(folder: Path, command: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )


def test_passphrase_is_stretched_by_our_code_in_any_folder(tmp_path: Path, stick: Stick) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text(PASSPHRASE)
    options = ["--name", "Clinic", "--recovery-kit", str(tmp_path / "kit")]
    command = emix(tmp_path / "home", "init", *options, "--passphrase-file", str(secret))
    done = run_in(stick.folder, command)
    assert stick.ran == ""
    assert done.returncode == 0, done.stderr


def test_environment_leads_no_child_to_other_code(
    tmp_path: Path, stick: Stick, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by a search path of the node's own: that one was the admin's to set."""
    from node.crypto.argon2 import FAST_FOR_TESTS, stretch

    monkeypatch.setenv("PYTHONPATH", str(stick.folder))
    monkeypatch.chdir(tmp_path)
    assert len(stretch(b"secret", bytes(16), FAST_FOR_TESTS)) == 32
    assert stick.ran == ""


def test_node_started_in_any_folder_runs_its_own_parsers(tmp_path: Path, stick: Stick) -> None:
    """The parsers start with the node, the builder of the DICOMDIR with an export."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "one.dcm").write_bytes(make_instance(1, 1))
    node = Node(tmp_path, "a", "Clinic")
    node.make()
    with subprocess.Popen(
        emix(node.home, "serve"), cwd=stick.folder, stderr=subprocess.PIPE
    ) as serving:
        try:
            assert serving.stderr is not None
            assert any(b'"node serves"' in line for line in serving.stderr)
            node.run("import", str(source))
            (study,) = json.loads(node.run("studies", "--json"))["studies"]
            uid = study["study_instance_uid"]
            node.run("export", uid, str(tmp_path / "out"), "--dicomdir")
        finally:
            serving.terminate()
            serving.communicate(timeout=60)
    assert stick.ran == ""
    assert (tmp_path / "out" / "DICOMDIR").exists()


def test_streamed_export_runs_our_builder_in_any_folder(tmp_path: Path, stick: Stick) -> None:
    from node.dicom.dicomdir import write_dicomdir

    folder = tmp_path / "out"
    (folder / "SE000001").mkdir(parents=True)
    (folder / "SE000001" / "IM000001").write_bytes(make_instance(1, 1))
    before = Path.cwd()
    os.chdir(stick.folder)
    try:
        write_dicomdir(folder)
    finally:
        os.chdir(before)
    assert stick.ran == ""
    assert (folder / "DICOMDIR").exists()


@pytest.mark.parametrize("module", ["node", "directory_service"])
def test_command_run_as_a_module_takes_nothing_from_the_current_folder(
    tmp_path: Path, module: str
) -> None:
    """Libraries' names, not ours: `-m node` itself means what lies in the folder."""
    stick = Stick(tmp_path, ("click.py", "grpc.py", "trio.py", "sitecustomize.py"))
    done = run_in(stick.folder, [sys.executable, "-m", module, "--version"])
    assert stick.ran == ""
    assert done.returncode == 0, done.stderr
