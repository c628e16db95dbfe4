"""What CONTRIBUTING.md tells people to run, run in a copy of the tree, and what it names."""

import filecmp
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
# Those that CI runs itself (`make test-all` begins with test, and that with check), and those that
# take hours: here only whether make knows them.
BY_OTHERS = {"make check", "make test", "make test-all", "make torture", "make demo"}
LEFT_OUT = (".git", ".venv", "__pycache__", "*_cache", ".hypothesis", "*.egg-info", ".data")
PLACES = ("node", "directory_service", "proto", "tests", "docs", "deploy", "bench")


def commands() -> list[str]:
    """Return the commands of the page in their order, without what is said of them."""
    blocks = re.findall(r"^```sh\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    lines = [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


COMMANDS = [line for line in commands() if not line.startswith("apt-get ")]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the tree, with an environment that is already made."""
    tree = tmp_path_factory.mktemp("copy") / "emix"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*LEFT_OUT))
    environment = tree / ".venv"
    environment.mkdir()
    for part in ("bin", "lib", "include", "pyvenv.cfg"):
        (environment / part).symlink_to(Path(sys.prefix) / part)
    (environment / ".ready").touch()
    return tree


def test_packages_are_those_that_ci_installs() -> None:
    named = [line for line in commands() if line.startswith("apt-get ")]
    assert named
    installed = [word for line in named for word in _packages(line)]
    [in_ci] = [
        line for line in (ROOT / ".ci/run").read_text().splitlines() if "apt-get install" in line
    ]
    assert sorted(installed) == sorted(_packages(in_ci))
    assert len(set(installed)) == len(installed)


def _packages(line: str) -> list[str]:
    words = shlex.split(line.partition(">")[0])
    return [word for word in words[words.index("install") + 1 :] if not word.startswith("-")]


@pytest.mark.parametrize("command", [line for line in COMMANDS if line not in BY_OTHERS])
def test_command_does_what_it_says_and_leaves_the_tree_as_it_is(command: str, copy: Path) -> None:
    done = subprocess.run(
        shlex.split(command), cwd=copy, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("proto", "docs", "deploy"):
        assert _differing(filecmp.dircmp(ROOT / name, copy / name)) == []


def _differing(compared: "filecmp.dircmp[str]") -> list[str]:
    found = [*compared.diff_files, *compared.left_only, *compared.right_only]
    here = [name for name in found if name != "__pycache__"]
    return here + [name for below in compared.subdirs.values() for name in _differing(below)]


@pytest.mark.parametrize("command", sorted(BY_OTHERS))
def test_make_knows_what_others_run(command: str, copy: Path) -> None:
    assert command in COMMANDS
    done = subprocess.run(
        [*shlex.split(command), "--dry-run"], cwd=copy, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/states.md", "docs/releasing.md"])
def test_page_names_files_that_are_there(page: str) -> None:
    """A room that is to come is said to be, and is not there."""
    text = (ROOT / page).read_text()
    named = re.findall(rf"`((?:{'|'.join(PLACES)})/[\w./-]+)`( \(not there yet\))?", text)
    assert named
    for path, is_to_come in named:
        assert (ROOT / path).exists() != bool(is_to_come), path
    for link in re.findall(r"\]\((?!http|#)([^)#]+)", text):
        assert ((ROOT / page).parent / link).exists(), link
