"""Which of its certificates a node shows, and what it states."""

from pathlib import Path
from time import time

import pytest

from node import clock
from node.crypto.certificates import make_tls_identity
from node.crypto.keyring import RootKey, Secrets
from node.crypto.keys import SealKey
from node.crypto.signing import SigningKey, node_id
from node.documents.signed import DocumentSigner, certify_node
from node.home import Home, Unlocked
from node.own_identity import OwnIdentity

DAY = 86400.0


def test_after_a_month_off_the_certificate_is_shown_that_others_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock is suspect then: only who is let in can confirm it."""
    wall = time() + 95 * DAY
    judged = clock.Clock(lambda: wall, lambda: 0.0)
    judged.begin(time() + 61 * DAY)
    monkeypatch.setattr(clock, "CLOCK", judged)
    monkeypatch.setattr(clock, "now", judged.now)
    assert clock.CLOCK.doubt
    node = SigningKey.new()
    signer = DocumentSigner(node, certify_node(SigningKey.new(), node, time()))
    made = [make_tls_identity(node_id(node.public), time() + d * DAY) for d in (61, 0)]
    secrets = Secrets(node, (SealKey.new(),), tuple(made), {1: bytes(32)})
    own = OwnIdentity(Home(tmp_path), Unlocked(RootKey.new(), secrets, signer))
    assert own.tls() == made[0]
