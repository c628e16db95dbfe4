"""Somebody with the keys of a home changes its audit log: other facilities know better."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.attacks import audit_log
from tests.support.dicom_files import study_uid, write_study
from tests.support.nodes import Node, two_nodes, wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    """Two paired nodes, of which the first has exported a study."""
    with two_nodes(tmp_path) as (a, b):
        folder = tmp_path / "study"
        write_study(folder, 1, 2)
        a.run("import", str(folder))
        a.run("export", study_uid(1), str(tmp_path / "taken"))
        audit_log.reconnect(a)
        yield a, b


def alarms(node: Node) -> str:
    return "\n".join(node.json("status")["alarms"])


@pytest.mark.parametrize("way", ["cut", "rewritten"])
def test_log_that_is_changed_with_the_host_key_is_found_out_by_what_a_peer_keeps(
    way: str, pair: tuple[Node, Node]
) -> None:
    a, b = pair
    a.stop()
    if way == "cut":
        audit_log.cut(a, 4)
    else:
        audit_log.rewrite(a, "study.exported")
    audit_log.started(a)
    found = a.run("audit", "verify", statuses=(0, 1))
    assert "chain of" in found or "chain is intact" in found  # by itself, nothing is wrong with it
    assert "CONTRADICTED by Billings Hospital" in found
    asked = a.run("audit", "verify", "--witnesses", statuses=(1,))
    assert ("truncated" if way == "cut" else "rewritten") in asked
    assert "an old copy of the home" in alarms(a)
    wait_until(lambda: "does not continue" in alarms(b), "the witness raises no alarm", 90)
    assert a.run("audit", "--alarms").count("alarm.audit-log") == 1
    # It stays found out, though the log grows on from what it is now.
    audit_log.reconnect(a)
    a.run("audit", "verify", "--witnesses", statuses=(1,))


def test_old_copy_of_a_home_is_told_of_and_works_and_can_be_accepted(
    pair: tuple[Node, Node], tmp_path: Path
) -> None:
    a, b = pair
    a.stop()
    copy = audit_log.copied(a, tmp_path)
    audit_log.started(a)
    a.run("export", study_uid(1), str(tmp_path / "taken again"))
    audit_log.reconnect(a)
    a.stop()
    audit_log.put_back(a, copy)
    audit_log.started(a)
    assert "an old copy of the home was restored" in alarms(a)
    assert "delivered" in a.run("send", study_uid(1), "Billings Hospital", "--wait")
    wait_until(lambda: "does not continue" in alarms(b), "the witness raises no alarm", 90)
    # A person there says why, and the person here believes it.
    b.run("audit", "acknowledge")
    b.run("audit", "accept", "Great Falls Clinic")
    a.run("audit", "acknowledge")
    audit_log.reconnect(a)
    proven = a.run("audit", "verify", "--witnesses")
    assert "are confirmed: 1 facility keeps" in proven
    assert "old copy" not in alarms(a)
    assert "does not continue" not in alarms(b)


def test_head_that_was_kept_elsewhere_finds_out_what_nobody_else_knows(tmp_path: Path) -> None:
    node = Node(tmp_path, "alone", "Lonely Clinic")
    node.make()
    node.start()
    try:
        file = tmp_path / "head.json"
        node.run("audit", "head", "--export", str(file))
        entry = node.run("audit", "head").split()[-1]
        assert "match the given head" in node.run("audit", "verify", "--head", str(file))
        assert "match the given head" in node.run("audit", "verify", "--entry", entry)
        node.run("audit", "verify", "--witnesses", statuses=(20,))
        node.stop()
        audit_log.rewrite(node, "node.made")
        node.start()
        for how in (("--head", str(file)), ("--entry", entry)):
            assert "rewritten" in node.run("audit", "verify", *how, statuses=(1,))
    finally:
        node.stop()
