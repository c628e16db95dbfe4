"""What a running node makes of odd input: counted right, named, and given back byte for byte."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.cases import Case, Right, files, media, studies
from tests.support.nodes import Node

# pydicom's FileSet leaves its temporary folders to the garbage collector.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SMALL_FILES = [case for case in files.CASES if not case.is_large]


@pytest.fixture(scope="module")
def scratched(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """The library with which reads of some files fail; None without a compiler."""
    if shutil.which("cc") is None:
        assert os.environ.get("CI") != "true", "a compiler is missing; .ci/run installs it"
        return None
    library = tmp_path_factory.mktemp("library") / "bad_sectors.so"
    source = Path(__file__).with_name("bad_sectors.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.fixture(scope="module", params=["by the node", "streamed"])
def importing(
    request: pytest.FixtureRequest, scratched: Path | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Node, tuple[str, ...]]]:
    """A node, and how it is given what it imports."""
    node = Node(tmp_path_factory.mktemp("node"), "odd", "Odd Clinic")
    if scratched is not None:
        node.prefix = ["env", f"LD_PRELOAD={scratched}"]
    node.make()
    node.start()
    yield node, ("--stream",) if request.param == "streamed" else ()
    node.stop()


def _import(importing: tuple[Node, tuple[str, ...]], path: Path) -> Any:
    node, how = importing
    return node.json("import", str(path), *how, statuses=(0, 1))


def _right_of(summary: dict[str, Any]) -> Right:
    return Right(
        carried=int(summary["carried"]),
        flagged=int(summary["flagged"]),
        refused=int(summary["refused"]),
        not_dicom=int(summary["not_dicom"]),
        directories=int(summary["directories"]),
        missing=int(summary["missing"]),
    )


def _without_words(right: Right) -> Right:
    return replace(right, words=())


@pytest.mark.parametrize("case", [*media.CASES, *studies.CASES], ids=lambda case: case.name)
def test_case_is_imported_right(
    case: Case, importing: tuple[Node, tuple[str, ...]], tmp_path: Path
) -> None:
    node, _ = importing
    if case.name == "bad-sectors" and not node.prefix:
        pytest.skip("needs a C compiler")
    case.make(tmp_path)
    told = _import(importing, tmp_path)
    reasons = "\n".join(reason for f in told["findings"] for reason in f["reasons"])
    assert _right_of(told["summary"]) == _without_words(case.right), told["findings"]
    assert [word for word in case.right.words if word not in reasons] == []


def test_odd_files_are_given_back_byte_for_byte(
    importing: tuple[Node, tuple[str, ...]], tmp_path: Path
) -> None:
    for case in SMALL_FILES:
        case.make(tmp_path / "in" / case.name)
    told = _import(importing, tmp_path / "in")
    right = _right_of(told["summary"])
    assert right.carried == sum(case.right.carried for case in SMALL_FILES)
    assert right.flagged == sum(case.right.flagged for case in SMALL_FILES)
    assert right.refused == sum(case.right.refused for case in SMALL_FILES)
    refused = {f["label"] for f in told["findings"] if f["verdict"] == "refuse"}
    wanted = {
        hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (tmp_path / "in").rglob("*")
        if path.is_file() and str(path) not in refused
    }
    node, _ = importing
    found = set()
    for number, uid in enumerate(told["summary"]["study_instance_uids"]):
        out = tmp_path / f"out{number}"
        node.run("export", uid, str(out))
        found |= {hashlib.sha256(p.read_bytes()).hexdigest() for p in out.rglob("IM*")}
    assert found == wanted


def test_what_has_no_dicom_in_it_is_no_success(
    importing: tuple[Node, tuple[str, ...]], tmp_path: Path
) -> None:
    node, how = importing
    for case in media.CASES:
        if case.name in ("nothing", "nothing-of-dicom"):
            case.make(tmp_path / case.name)
            done = subprocess.run(
                node.command("import", str(tmp_path / case.name), *how),
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 1
            assert "no DICOM file was found in" in done.stderr


@pytest.mark.parametrize("name", ["disc-with-a-viewer", "several-patients"])
def test_disc_with_more_than_images_on_it_is_a_success(
    name: str, importing: tuple[Node, tuple[str, ...]], tmp_path: Path
) -> None:
    [case] = [case for case in media.CASES if case.name == name]
    case.make(tmp_path)
    node, how = importing
    said = node.run("import", str(tmp_path), *how)  # exit status 0
    assert "refused" not in said.replace("0 refused", "")


def test_dicomdir_that_is_named_brings_what_it_names_and_no_other_patient(
    importing: tuple[Node, tuple[str, ...]], tmp_path: Path
) -> None:
    """Copied in lower case, the images of others beside it; and what is large, or damaged."""
    by_name = {case.name: case for case in media.CASES}
    copied, large, damaged = (
        by_name[name]
        for name in ("disc-copied-in-lower-case", "large-dicomdir", "damaged-dicomdir")
    )
    for case in (copied, large, damaged):
        case.make(tmp_path / case.name)
    by_name["several-patients"].make(tmp_path / copied.name)
    told = _import(importing, tmp_path / copied.name / "DICOMDIR")
    summary = told["summary"]
    assert (summary["carried"] + summary["known"], summary["directories"]) == (3, 1)
    assert told["findings"] == []
    told = _import(importing, tmp_path / large.name / "DICOMDIR")
    assert _right_of(told["summary"]) == Right(directories=1, missing=24_000)
    told = _import(importing, tmp_path / damaged.name / "DICOMDIR")
    assert _right_of(told["summary"]) == Right(refused=1)
    assert "name the folder instead" in told["findings"][0]["reasons"][0]
