"""The commit of the frozen formats, as a wheel: its home opens here, and it exchanges with us."""

import json
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.frozen import STORE_FORMATS
from tests.support.dicom_files import make_instance, make_noisy_instance, study_uid
from tests.support.nodes import Node, pair

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.long]
ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a Python that has that commit's wheel, and our own dependencies."""
    folder = tmp_path_factory.mktemp("frozen")
    shallow = run("git", "rev-parse", "--is-shallow-repository").strip() == "true"
    assert not shallow, "the whole history is needed: git fetch --unshallow"
    (folder / "source").mkdir()
    run("git", "archive", STORE_FORMATS, "-o", folder / "source.tar")
    run("tar", "-xf", folder / "source.tar", "-C", folder / "source")
    build = (sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", folder)
    run(*build, cwd=folder / "source")
    [wheel] = folder.glob("emix-*.whl")
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel)
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    # What an editable install adds to the path of ours is not followed from here.
    (Path(site) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    found = run(python, "-c", "import node; print(node.__file__)", cwd=folder).strip()
    assert Path(found).is_relative_to(folder)
    return python


@pytest.fixture
def nodes(tmp_path: Path, frozen: Path) -> Iterator[tuple[Node, Node]]:
    """Return a node of that commit, and one of ours."""
    then = Node(tmp_path, "then", "Great Falls Clinic")
    now = Node(tmp_path, "now", "Billings Hospital")
    as_then(then, frozen)
    for node in (then, now):
        node.make()
    then.set(compression='"small"')
    try:
        yield then, now
    finally:
        for node in (then, now):
            node.stop()


def as_then(node: Node, frozen: Path) -> None:
    """Have a node be of that commit; the folder that we are in has ours."""
    node.python = str(frozen)
    node.prefix = ["env", "-C", "/"]


def write(folder: Path, study: int) -> dict[str, bytes]:
    """Write a study of small and large instances; return them by name."""
    folder.mkdir()
    files = {f"{n}.dcm": make_instance(study, n) for n in range(1, 6)}
    files |= {f"{n}.dcm": make_noisy_instance(study, n, size=512) for n in range(6, 10)}
    files["10.dcm"] = make_noisy_instance(study, 10, size=1600)  # larger than a chunk
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return files


def exported(node: Node, study: int, folder: Path) -> list[bytes]:
    node.run("export", study_uid(study), str(folder))
    return sorted(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_its_home_opens_with_all_that_is_in_it(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    then, now = nodes
    files = write(tmp_path / "source", 1)
    for node in nodes:
        node.start()
    then.run("import", str(tmp_path / "source"))
    pair(then, now)
    then.run("send", study_uid(1), now.display_name, "--wait")
    then.stop()
    then.python, then.prefix = sys.executable, []
    then.start()
    assert exported(then, 1, tmp_path / "out") == sorted(files.values())
    assert ", 0 problems" in then.run("store", "check", "--read-data")
    assert json.loads(then.run("audit", "verify", "--json"))["problem"] == ""
    assert then.json("receipts")["receipts"]
    then.run("backup", str(tmp_path / "backup"))
    then.run("backup", "verify", str(tmp_path / "backup"))


def test_it_exchanges_with_us_both_ways(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    then, now = nodes
    for node in nodes:
        node.start()
    pair(then, now)
    for study, (sender, receiver) in enumerate((nodes, nodes[::-1]), 1):
        source = tmp_path / f"source{study}"
        files = write(source, study)
        sender.run("import", str(source))
        sender.run("send", study_uid(study), receiver.display_name, "--wait")
        assert exported(receiver, study, tmp_path / f"out{study}") == sorted(files.values())
        assert ", 0 problems" in receiver.run("store", "check", "--read-data")
