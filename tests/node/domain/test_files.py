"""A file at the wrong place is named for what it is."""

import json

import pytest

from node.crypto.keyring import KIT_FORMAT, RecoveryKit
from node.documents.audit_head import FILE_FORMAT
from node.documents.node_requests import ANSWER_FORMAT, REQUEST_FORMAT
from node.documents.receipt import PROOF_FORMAT
from node.domain.files import kind_of_file, wrong_file


@pytest.mark.parametrize(
    "kind", [KIT_FORMAT, FILE_FORMAT, ANSWER_FORMAT, REQUEST_FORMAT, PROOF_FORMAT]
)
def test_every_format_of_ours_is_known(kind: str) -> None:
    named = kind_of_file(json.dumps({"format": kind}).encode())
    assert named not in ("", "JSON of another kind")


def test_recovery_kit_given_away_is_called_a_secret() -> None:
    text = wrong_file("x", RecoveryKit.new().encode("ID"), "what `emix id --export` writes")
    assert text.startswith("x is not what `emix id --export` writes")
    assert "which is secret" in text


def test_others_are_named_or_left_unnamed() -> None:
    assert kind_of_file(b"emix-join-abc").startswith("a join letter")
    assert kind_of_file(bytes(128) + b"DICM") == "a DICOM file"
    assert kind_of_file(b"{" * 5000) == "JSON of another kind"
    assert kind_of_file(b"\x0a\x20") == kind_of_file(b"") == ""
