"""The summary in a delivery: for its receiver, of this transfer, and bounded."""

import pytest

from node.crypto.keys import DataKey
from node.documents.summary import MAX_SEALED_BYTES, open_summary, seal_summary
from node.domain.ids import TransferId
from node.domain.patients import Patient
from node.domain.summary import MAX_TEXT, MOST_PATIENTS, Summary
from node.errors import BadDelivery

WHAT = Summary(
    (Patient("Müller^Jörg", "P1", "19500102", "M"),), "1.2.3", "20261124", "Thorax", "CT SR", "A1"
)


def test_summary_is_read_with_the_packages_key_and_for_its_transfer_only() -> None:
    key, transfer = DataKey.new(), TransferId.new()
    sealed = seal_summary(WHAT, key, transfer)
    assert "Müller".encode() not in sealed
    assert open_summary(sealed, key, transfer) == WHAT
    for other in ((DataKey.new(), transfer), (key, TransferId.new())):
        with pytest.raises(BadDelivery):
            open_summary(sealed, *other)
    with pytest.raises(BadDelivery):
        open_summary(sealed[:-1] + bytes([sealed[-1] ^ 1]), key, transfer)
    assert open_summary(b"", key, transfer) is None


def test_summary_of_anything_is_bounded_and_safe_to_show() -> None:
    wild = "\x1b[2J\u202e" + "ü" * 10_000
    many = Summary(tuple(Patient(wild, wild, wild, wild) for _ in range(50)), *[wild] * 5)
    key, transfer = DataKey.new(), TransferId.new()
    sealed = seal_summary(many, key, transfer)
    assert len(sealed) <= MAX_SEALED_BYTES
    found = open_summary(sealed, key, transfer)
    assert found is not None
    assert len(found.patients) == MOST_PATIENTS
    assert max(map(len, (found.description, found.patients[0].name))) <= MAX_TEXT
    assert found.description.isprintable()
