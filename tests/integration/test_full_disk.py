"""A node whose disk is full to the last byte: what frees room works, and nothing is lost."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.dicom_files import study_uid, write_study
from tests.support.disks import fill, mounted
from tests.support.nodes import CommandFailed, Node, pair, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]  # a transfer comes again after a minute


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small file system")
    with mounted(tmp_path / "disk", "160m") as folder:
        yield folder


def test_full_disk_is_left_by_deleting_and_loses_nothing(disk: Path, tmp_path: Path) -> None:
    full, other = Node(disk, "full", "Full Clinic"), Node(tmp_path, "other", "Other Clinic")
    full.kit, full.log = tmp_path / "kit", tmp_path / "full.log"
    for node in (full, other):
        node.make()
        node.start()
    try:
        pair(full, other)
        for study in (81, 82):
            full.run("import", str(write_study(tmp_path / str(study), study, 20)))
        fill(disk)
        assert [s["instances"] for s in full.json("studies")["studies"]] == [20, 20]
        with pytest.raises(CommandFailed, match="full"):
            full.run("import", str(write_study(tmp_path / "83", 83, 2)))
        other.run("import", str(tmp_path / "83"))
        other.run("send", study_uid(83), "Full Clinic")
        wait_until(lambda: reason(other), "it is not told that there is no room")
        # Stopped and started, twice: what was recorded is there.
        for _ in range(2):
            assert full.stop() == 0
            full.start()
        kinds = [entry["kind"] for entry in full.json("audit", "--limit", "2")["entries"]]
        assert kinds == ["node.stopped", "node.started"]
        full.run("study", study_uid(81))
        full.run("delete", study_uid(81), "--yes")
        assert full.json("studies", study_uid(82))["studies"][0]["instances"] == 20
        (disk / "others").unlink()
        wait_until(
            lambda: full.json("studies", study_uid(83))["studies"], "the transfer never ends", 90
        )
        assert "0 problems" in full.run("store", "check", "--read-data")
        full.run("audit", "verify")
        assert [p["state"] for p in full.json("peers")["peers"]] == ["connected"]
    finally:
        assert [node.stop() for node in (full, other)] == [0, 0]


def reason(node: Node) -> str:
    transfers = node.json("transfers")["transfers"]
    return str(transfers[0]["reason"])
