"""A package with reports, between running nodes: carried, shown, exported, and in a ZIP."""

import zipfile
from pathlib import Path

import pytest
import trio

from node.app.home import Home, unlock
from node.store.context import open_store
from tests.support.attachments import LARGE, REPORT, put_package
from tests.support.dicom_files import make_instance, study_uid
from tests.support.nodes import Node, pair

pytestmark = pytest.mark.integration
ATTACHED = [("application/pdf", REPORT, ()), ("application/x-emix-test", LARGE, ("1.2.3",))]


def put(node: Node, study: int) -> None:
    """Put a package into a node that does not run, as whatever brings reports will."""
    unlocked = unlock(Home(node.home), None)
    context = open_store(
        node.home, unlocked.root_key, unlocked.secrets, unlocked.signer, reserve_bytes=0
    )
    try:
        trio.run(put_package, context, study, ATTACHED)
    finally:
        context.close()


def test_reports_travel_with_their_study_byte_for_byte(tmp_path: Path) -> None:
    a, b = Node(tmp_path, "a", "Great Falls Clinic"), Node(tmp_path, "b", "Billings Hospital")
    try:
        for node in (a, b):
            node.make()
        put(a, 1)
        for node in (a, b):
            node.start()
        pair(a, b)
        a.run("send", study_uid(1), b.display_name, "--wait")
        (source,) = b.json("study", study_uid(1))["sources"]
        (package,) = source["packages"]
        assert [x["media_type"] for x in package["attachments"]] == [kind for kind, *_ in ATTACHED]
        assert (package["instances"], package["attachments_total"]) == (2, 2)
        shown = b.run("study", study_uid(1))
        assert "attached: application/pdf, 960 B, about the study" in shown
        assert "about 1 series or instances" in shown
        exported = b.json("export", study_uid(1), str(tmp_path / "out"), "--dicomdir", "--yes")
        assert (exported["instances"], exported["attachments"]) == (2, 2)
        assert exported["has_dicomdir"]
        assert not exported["unlisted"]
        out = tmp_path / "out" / "ATTACHED"
        assert (out / "AT000001.pdf").read_bytes() == REPORT
        assert (out / "AT000002.bin").read_bytes() == LARGE
        said = b.run("export", study_uid(1), str(tmp_path / "out.zip"), "--yes")
        assert "2 instances and 2 attachments" in said
        with zipfile.ZipFile(tmp_path / "out.zip") as archive:
            assert archive.read("ATTACHED/AT000001.pdf") == REPORT
            assert archive.read("SE000001/IM000001") == make_instance(1, 1)
        b.run("store", "check", "--read-data")
        assert b.run("receipts")
    finally:
        for node in (a, b):
            node.stop()
