"""Who exported this patient's study, when, and where to: the audit log says it."""

import getpass
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.dicom_files import study_uid, write_study
from tests.support.nodes import Node

pytestmark = pytest.mark.integration


def entries(node: Node, *options: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = node.json("audit", "--limit", "0", *options)["entries"]
    return [{**entry, "facts": json.loads(entry["body"])} for entry in found]


def test_export_and_sending_name_the_study_and_where_it_went(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, b = nodes
    study, taken = study_uid(71), tmp_path / "PLANTED^PATIENT"
    a.run("import", str(write_study(tmp_path / "in", 71, 2)))
    a.run("export", study, str(taken))
    a.run("send", study, "Billings Hospital", "--wait")
    own = a.json("status")["facility_id"]
    exported = [e for e in entries(a) if e["kind"] == "study.exported"]
    assert [e["facts"].get("study") for e in exported] == [study]
    assert exported[0]["facts"]["destination"] == str(taken)
    assert exported[0]["facts"]["origin"] == own
    about = {e["kind"]: e for e in entries(a, "--study", study)}
    assert {"package.closed", "study.exported", "transfer.offered", "transfer.delivered"} <= set(
        about
    )
    assert about["transfer.offered"]["facts"]["peer"] == b.json("status")["facility_id"]
    # Asked by whom, to whom and when.
    mine = ("--operator", getpass.getuser(), "--action", "study.exported", "--since", "2020-01-01")
    assert [e["facts"]["destination"] for e in entries(a, "--study", study[:-1], *mine)] == [
        str(taken)
    ]
    sent = entries(a, "--peer", "Billings Hospital", "--action", "transfer.")
    assert {e["facts"]["study"] for e in sent} == {study}
    assert entries(a, "--study", study, "--until", "2020-01-01") == []
    got = entries(b, "--study", study, "--peer", "Great Falls Clinic")
    assert "transfer.received" in [e["kind"] for e in got]
    # It is in the encrypted log, and in no other.
    for node in nodes:
        assert "PLANTED" not in node.log.read_text()
        assert study not in node.log.read_text()


def test_looking_at_a_study_is_an_entry_and_lists_do_not_flood(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    a, _ = nodes
    study = study_uid(72)
    a.run("import", str(write_study(tmp_path / "in", 72, 1)))
    a.run("study", study)
    for _ in range(3):
        a.run("studies", "nobody-is-called-so")
    kinds = [e["kind"] for e in entries(a)]
    assert "study.shown" in kinds
    [shown] = entries(a, "--study", study, "--action", "study.shown")
    assert getpass.getuser() in shown["operator"]
    listed = [e["facts"] for e in entries(a, "--action", "catalogue.queried")]
    assert [f["answers"] for f in listed if f["query"] == "nobody-is-called-so"] == [0]
