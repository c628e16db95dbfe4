"""Real nodes whose chunks are in a real object store: exchange, kills, a server that is away."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.dicom_files import study_uid, write_study
from tests.support.nodes import CommandFailed, Node, pair, two_nodes, wait_until
from tests.support.seaweed import BUCKET, Seaweed, seaweed

_KILLS = 4
_SOON_SECONDS = 25
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


def listed(server: Seaweed, prefix: str = "billings") -> set[str]:
    found = server.client.call("list_objects_v2", Bucket=BUCKET, Prefix=f"{prefix}/")
    return {one["Key"].removeprefix(f"{prefix}/") for one in found["Contents"]}


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


def test_chunks_move_into_the_bucket_and_back_while_a_study_is_sent(
    server: Seaweed, tmp_path: Path
) -> None:
    with two_nodes(tmp_path) as (a, b):
        write_study(tmp_path / "cd", 2, 40, size=512)
        a.run("import", str(tmp_path / "cd"))
        before = {path.name for path in (a.home / "chunks").glob("*/*")}
        place = f'"{server.text("great-falls")}"'
        a.stop()
        a.set(chunks=place, chunks_before='"home"', chunks_credentials=f'"{server.credentials}"')
        a.start()
        a.run("send", study_uid(2), b.display_name, "--wait")
        wait_until(lambda: _has_moved(a), "not all have moved")
        assert not list((a.home / "chunks").glob("*/*"))
        assert listed(server, "great-falls") - {"owner"} == before
        a.kill()
        text = (a.home / "emix.toml").read_text()
        text = text.replace(f"chunks = {place}", "").replace('"home"', place)
        (a.home / "emix.toml").write_text(text)
        a.start()
        a.run("export", study_uid(2), str(tmp_path / "out"))
        wait_until(lambda: _has_moved(a), "not all have moved back")
        assert listed(server, "great-falls") == {"owner"}
        assert {path.name for path in (a.home / "chunks").glob("*/*")} == before
        a.run("store", "check", "--read-data")
        assert len(a.json("audit", "--action", "store.chunks-moved")["entries"]) == 2


def _has_moved(node: Node) -> bool:
    findings = node.json("doctor", statuses=(0, 1))["findings"]
    return any("all chunks are in" in finding["text"] for finding in findings)


def test_kills_while_a_study_is_received_into_a_bucket_lose_nothing(
    nodes: tuple[Node, Node], server: Seaweed, tmp_path: Path
) -> None:
    a, b = nodes
    write_study(tmp_path / "cd", 3, 60, size=512)
    a.run("import", str(tmp_path / "cd"))
    a.run("send", study_uid(3), b.display_name)
    for kill in range(_KILLS):
        wait_until(lambda kill=kill: len(listed(server)) > kill + 1 or _is_delivered(a), "nothing")
        b.kill()
        b.start()
    wait_until(lambda: _is_delivered(a), "it is not delivered", 90)
    b.run("store", "check", "--read-data")
    b.run("export", study_uid(3), str(tmp_path / "out"))
    sent = sorted(path.read_bytes() for path in (tmp_path / "cd").iterdir())
    assert sorted(p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()) == sent


def _is_delivered(node: Node) -> bool:
    return all(t["state"] == "delivered" for t in node.json("transfers")["transfers"])


def test_doctor_soon_says_that_the_object_store_is_away(
    nodes: tuple[Node, Node], server: Seaweed, tmp_path: Path
) -> None:
    _, b = nodes
    server.process.send_signal(signal.SIGSTOP)
    try:
        started = time.monotonic()
        said = b.run("doctor", statuses=(1,))
        assert "has not answered in 10 s" in said
        assert time.monotonic() - started < _SOON_SECONDS
        b.run("status")
    finally:
        server.process.send_signal(signal.SIGCONT)
    assert "answers in" in b.run("doctor", statuses=(0, 1))
    b.run("store", "check")
