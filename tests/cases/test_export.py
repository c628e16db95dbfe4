"""Odd studies on their way out: every file is there, and a DICOMDIR lists it or says why not."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from tests.cases import Case, studies
from tests.support.nodes import Node

pytestmark = [pytest.mark.integration, pytest.mark.slow]

_LEAVES = {
    "instances-in-two-series": ["IMAGE"] * 4,
    "odd-numbers": ["IMAGE"] * 7,
    "raw-data": ["IMAGE", "PRIVATE", "PRIVATE", "PRIVATE", "RAW DATA"],
    "anonymised": ["IMAGE"] * 2,
    "one-report": ["ENCAP DOC"],
    "two-patients": ["IMAGE"] * 2,
}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = Node(tmp_path_factory.mktemp("node"), "odd", "Odd Clinic")
    node.make()
    node.start()
    yield node
    node.stop()


@pytest.mark.parametrize("case", studies.CASES, ids=lambda case: case.name)
def test_study_is_exported_whole_and_listed_in_its_dicomdir(
    case: Case, node: Node, tmp_path: Path
) -> None:
    case.make(tmp_path / "in")
    told = node.json("import", str(tmp_path / "in"), statuses=(0, 1))
    listed: list[str] = []
    for n, uid in enumerate(told["summary"]["study_instance_uids"]):
        out = tmp_path / f"out{n}"
        answer = node.json("export", uid, str(out), "--dicomdir")
        assert (answer["has_dicomdir"], answer["unlisted"]) == (True, [])
        for record in dcmread(out / "DICOMDIR").DirectoryRecordSequence:
            if "ReferencedFileID" in record:
                listed.append(record.DirectoryRecordType)
                found = dcmread(out.joinpath(*record.ReferencedFileID), stop_before_pixels=True)
                assert found.SOPInstanceUID == record.ReferencedSOPInstanceUIDInFile
    assert sorted(listed) == sorted(_LEAVES[case.name])
    came = {path.read_bytes() for path in (tmp_path / "in").rglob("*") if path.is_file()}
    went = {path.read_bytes() for path in tmp_path.glob("out*/SE*/IM*")}
    assert went == came
