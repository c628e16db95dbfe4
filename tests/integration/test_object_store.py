"""Real nodes whose chunks are in a real object store: exchange, kills, a server that is away."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.dicom_files import study_uid, write_study
from tests.support.nodes import CommandFailed, Node, pair
from tests.support.seaweed import BUCKET, Seaweed, seaweed

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Seaweed]:
    (tmp_path / "weed").mkdir()
    with seaweed(tmp_path / "weed") as running:
        yield running


@pytest.fixture
def nodes(server: Seaweed, tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    """Two nodes; the second keeps its chunks in a bucket."""
    a, b = Node(tmp_path, "a", "Great Falls Clinic"), Node(tmp_path, "b", "Billings Hospital")
    a.make()
    b.make(options=server.options("billings"))
    try:
        for node in (a, b):
            node.start()
        pair(a, b)
        yield a, b
    finally:
        for node in (a, b):
            node.stop()


def listed(server: Seaweed) -> set[str]:
    found = server.client.call("list_objects_v2", Bucket=BUCKET, Prefix="billings/")
    return {one["Key"].removeprefix("billings/") for one in found["Contents"]}


def test_study_is_received_into_a_bucket_sent_on_backed_up_and_deleted(
    nodes: tuple[Node, Node], server: Seaweed, tmp_path: Path
) -> None:
    a, b = nodes
    write_study(tmp_path / "cd", 1, 5)
    a.run("import", str(tmp_path / "cd"))
    a.run("send", study_uid(1), b.display_name, "--wait")
    status = b.json("status")
    assert status["instances"] in (5, "5")
    assert status["chunk_place"] == f"s3://{BUCKET}/billings"
    assert not (b.home / "chunks").exists()
    chunks = listed(server) - {"owner"}
    assert chunks
    assert all(len(name) == 52 for name in chunks)
    assert "chunk storage: s3://" in b.run("doctor", statuses=(0, 1))
    b.run("store", "check", "--read-data")
    b.run("backup", str(tmp_path / "copy"))
    assert {path.name for path in (tmp_path / "copy" / "chunks").glob("*/*")} == chunks
    b.kill()
    b.start()
    b.run("export", study_uid(1), str(tmp_path / "out"))
    assert len([path for path in (tmp_path / "out").rglob("*") if path.is_file()]) == 5
    b.run("delete", study_uid(1), "--yes")
    assert listed(server) == {"owner"}


def test_second_node_with_the_same_prefix_is_not_made(
    nodes: tuple[Node, Node], server: Seaweed, tmp_path: Path
) -> None:
    other = Node(tmp_path, "other", "Another Clinic")
    with pytest.raises(CommandFailed, match="has another node's chunks"):
        other.make(options=server.options("billings"))
    assert not other.kit.exists()
