"""Imports that end before their time, with a real node: killed, or on a full disk."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from node.dicom.dicomdir import write_dicomdir
from tests.integration.test_policy import write_noise
from tests.support.dicom_files import make_instance, study_uid
from tests.support.nodes import CommandFailed, Node, wait_until
from tests.support.processes import interruptible

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_import_of_a_killed_node_is_called_incomplete_until_it_is_resumed(tmp_path: Path) -> None:
    folder = write_noise(tmp_path / "cd", 80, 200)
    one = tmp_path / "one"
    one.mkdir()
    (one / "0000.dcm").write_bytes((folder / "0000.dcm").read_bytes())
    node = Node(tmp_path, "node", "Great Falls Clinic")
    node.make()
    node.start()
    importing = interruptible(node.command("import", str(folder)))
    try:
        wait_until(lambda: _chunks(node) > 50, "nothing was imported")  # of a hundred
        node.kill()
        importing.communicate(timeout=60)
        node.start()
        (left,) = node.json("imports")["imports"]
        assert (left["number"], left["sources"], left["is_running"]) == (1, [str(folder)], False)
        assert 0 < left["instances"] < 200
        assert "1 not finished" in node.run("status")
        assert "Synthetic" in node.run("imports")
        with pytest.raises(CommandFailed, match="`emix imports` unfinished imports"):
            node.run("study", study_uid(80))
        node.run("import", str(one))
        (study,) = node.json("studies")["studies"]
        assert (study["instances"], study["unfinished_imports"]) == (1, [1])
        assert "1 incomplete" in node.run("studies")
        said = node.run("export", study_uid(80), str(tmp_path / "out"), statuses=(1,))
        assert "Incomplete: import i1 of this study is not finished" in said
        there = _chunks(node)
        importing = interruptible(node.command("imports", "resume", "i1"))
        wait_until(lambda: _chunks(node) > there, "nothing is imported")
        importing.send_signal(signal.SIGINT)
        _, said = importing.communicate(timeout=60)
        kept = "the import was cancelled; i1 keeps the instances stored before"
        assert (importing.returncode, kept in said) == (130, True), said
        assert _kept(node) >= left["instances"]
        # A DICOMDIR names a file that is not there: as an import, this ends with 1.
        (folder / "disc" / "SE000001").mkdir(parents=True)
        for number in (1, 2):
            file = folder / "disc" / "SE000001" / f"IM{number:06d}"
            file.write_bytes(make_instance(83, number))
        write_dicomdir(folder / "disc")
        file.unlink()
        summary = node.json("imports", "resume", "i1", statuses=(1,))["summary"]
        assert summary["missing"] == 1
        assert summary["carried"] + summary["known"] == 201
        assert summary["known"] >= left["instances"]
        (study,) = node.json("studies", study_uid(80))["studies"]
        assert (study["instances"], study.get("unfinished_imports", [])) == (200, [])
        assert node.json("imports").get("imports", []) == []
    finally:
        importing.kill()
        node.kill()


def _chunks(node: Node) -> int:
    return sum(path.is_file() for path in (node.home / "chunks").rglob("*"))


def _kept(node: Node) -> int:
    found = node.json("imports").get("imports", [])
    return sum(one["instances"] for one in found)


def test_full_disk_gives_its_room_back_and_the_import_is_listed(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small file system")
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=280m", "tmpfs", str(small)], check=True)
    node = Node(small, "node", "Great Falls Clinic")
    node.make()
    node.start()
    try:
        before = node.json("status")["free_bytes"]
        folder = write_noise(tmp_path / "cd", 81, 260)
        with pytest.raises(CommandFailed, match="disk is full"):
            node.run("import", str(folder))
        assert before - node.json("status")["free_bytes"] < 30 * 2**20
        (left,) = node.json("imports")["imports"]
        assert (left["instances"], left["sealed_bytes"]) == (0, 0)
        assert "disk is full" in left["problem"]
        said = node.run("imports", "discard", "i1", "--yes")
        assert "Discarded import i1" in said
        assert node.json("imports").get("imports", []) == []
    finally:
        node.kill()
        subprocess.run(["umount", str(small)], check=True)
