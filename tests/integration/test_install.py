"""The wheel, as it is built, in an environment that has nothing but what it needs."""

import json
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.slow]
ROOT = Path(__file__).parents[2]


def test_wheel_in_an_environment_of_its_own_makes_a_node(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(tmp_path)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True)
    [wheel] = tmp_path.glob("emix-*.whl")
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    options = ("--quiet", "--no-deps", "--no-index")
    subprocess.run([python, "-m", "pip", "install", *options, wheel], check=True)
    # The packages that it needs are this environment's; the code is the wheel's.
    [packages] = (home / "lib").glob("python*/site-packages")
    (packages / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = "import node, directory_service, emix; print(node.__path__[0], emix.__path__[0])"
    found = run(python, "-c", where).split()
    assert all(Path(path).is_relative_to(packages) for path in found), found
    assert (packages / "emix" / "emix.protoset").stat().st_size > 10_000
    emix = home / "bin" / "emix"
    assert json.loads(run(emix, "version", "--json"))["name"] == "emix"
    node = ("--home", tmp_path / "node")
    run(emix, *node, "init", "--name", "Own Clinic", "--host-key", "--recovery-kit", tmp_path / "k")
    assert "Own Clinic" in run(emix, *node, "config", "check")
    run(home / "bin" / "emix-directory", "version")


def run(*command: str | Path) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd="/")
    return done.stdout
