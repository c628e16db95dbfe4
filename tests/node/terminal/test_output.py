"""Tables that fit, text that any output takes, JSON that machines can count with."""

import json
import os
import subprocess
import sys

import pytest
from emix.admin.v1 import admin_pb2 as pb

from node.terminal.output import Column, as_dict, show_table

UID = "1.2.826.0.1.3680043.10.1338.7.20261126.4711.12"


def test_numbers_are_numbers_in_json() -> None:
    value = as_dict(pb.GetStatusResponse(studies=3, free_bytes=2**40, started_seconds=1))
    assert (value["studies"], value["free_bytes"], value["started_seconds"]) == (3, 2**40, 1)
    study = as_dict(pb.GetStudyResponse(sources=[pb.Study(packages=[pb.Package(instances=7)])]))
    assert study["sources"][0]["packages"][0]["instances"] == 7
    assert json.dumps(as_dict(pb.Peer(round_trip_milliseconds=float("nan")))).count("null") == 1


def test_bytes_are_base64_and_what_is_not_there_is_left_out() -> None:
    assert as_dict(pb.GetIdentityResponse(statements=b"\x00\x01")) == {
        "facility_id": "",
        "statements": "AAE=",
    }
    assert as_dict(pb.PairPeerResponse()) == {"warnings": []}


def table(capsys: pytest.CaptureFixture[str], width: int) -> list[str]:
    columns = (
        ">NO",
        Column("PATIENT", least=8),
        "DATE",
        Column("ROUTE", spare=2),
        Column("NEVER"),
        Column("STUDY", least=12, is_middle=True),
        Column("WHY", is_note=True),
    )
    rows = [
        ("s1", "Müller^Hans-Jürgen^^Professor^", "2026-11-26", "dial-back", "", UID, ""),
        ("s12", "山田^太郎", "2026-11-25", "lan", "", UID, "the receiver has no room " * 6),
    ]
    show_table(columns, rows, "none", width=width)
    return capsys.readouterr().out.splitlines()


def columns_of(line: str) -> int:
    return sum(2 if ord(c) > 0x2E80 else 1 for c in line)


def test_table_fits_eighty_columns_and_keeps_both_ends_of_uids(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = table(capsys, 80)
    assert max(map(columns_of, lines)) <= 80
    assert lines[0].split() == ["NO", "PATIENT", "DATE", "ROUTE", "STUDY"]
    start, _, end = lines[1].split()[-1].partition("…")
    assert (UID.startswith(start), UID.endswith(end)) == (True, True)
    assert len(start) > 4 < len(end)
    below = " ".join(" ".join(lines[3:]).split())
    assert below == "why: " + ("the receiver has no room " * 6).strip()


def test_narrower_table_leaves_out_what_can_be_spared(capsys: pytest.CaptureFixture[str]) -> None:
    lines = table(capsys, 42)
    assert max(map(columns_of, lines)) <= 42
    assert lines[0].split() == ["NO", "PATIENT", "DATE", "STUDY"]


def test_table_without_a_width_shortens_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    lines = table(capsys, 0)
    assert UID in lines[1]
    assert lines[2].endswith("the receiver has no room")
    assert len(lines) == 3


PRINT = "from node.terminal.output import *; take_any_text(); "


def printed(program: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", PRINT + program],
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
        timeout=60,
    )


def test_output_that_cannot_be_encoded_is_shown_escaped() -> None:
    done = printed("print_line('M\\u00fcller \\u5c71')", PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stdout) == (0, b"M\xfcller \\u5c71\n"), done.stderr
    done = printed("show_json({'name': 'M\\u00fcller'})", PYTHONIOENCODING="latin-1")
    assert json.loads(done.stdout.decode("ascii")) == {"name": "Müller"}


def test_map_is_an_object_in_json() -> None:
    match = pb.Match(number=3, values={"PatientID": "P1", "Modality": "CT"})
    assert as_dict(match)["values"] == {"Modality": "CT", "PatientID": "P1"}
