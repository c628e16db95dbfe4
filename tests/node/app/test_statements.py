"""Which of its certificates a node shows, and what it states."""

from dataclasses import replace
from pathlib import Path
from time import time

import pytest

from node.app.home import Home, NewNode, make_home, unlock
from node.app.statements import OwnIdentity
from node.crypto.certificates import TlsIdentity, make_tls_identity, validity
from node.system import clock

DAY = 86400.0


def test_after_a_month_off_the_certificate_is_shown_that_others_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock is suspect then: only who is let in can confirm it."""
    set_clock(monkeypatch, wall=95, believed=61)
    own, made = make_own(tmp_path, 61, 0)
    assert own.tls() == made[0]


def test_certificate_of_a_time_to_come_does_not_take_the_place_of_a_valid_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock was years ahead, and is right again; the time that was believed is wrong still."""
    set_clock(monkeypatch, wall=10, believed=3650)
    own, made = make_own(tmp_path, 3650, 0)
    assert own.tls() == made[1]
    assert made[1] in own._unlocked.secrets.tls
    clock.CLOCK.confirm()
    assert own.renew(clock.now()), "what is valid in ten years only is of no use"
    start, _ = validity(own._unlocked.secrets.tls[0].certificate_der)
    assert start <= clock.now()
    assert own._unlocked.secrets.tls[1] == made[1]
    assert not own.renew(clock.now())


def set_clock(monkeypatch: pytest.MonkeyPatch, *, wall: float, believed: float) -> None:
    """Have the clock show one day, and another one believed; counted from today."""
    shown = time() + wall * DAY
    judged = clock.Clock(lambda: shown, lambda: 0.0)
    judged.begin(time() + believed * DAY)
    monkeypatch.setattr(clock, "CLOCK", judged)
    monkeypatch.setattr(clock, "now", judged.now)
    assert clock.CLOCK.doubt


def make_own(folder: Path, *days: float) -> tuple[OwnIdentity, list[TlsIdentity]]:
    """Return the identity of a node with certificates of these days."""
    home = Home(folder / "node")
    make_home(home, NewNode("Clinic", folder / "kit", None, "127.0.0.1:0", "127.0.0.1:0"))
    unlocked = unlock(home, None)
    node = unlocked.signer.node_id
    made = [make_tls_identity(node, time() + day * DAY) for day in days]
    secrets = replace(unlocked.secrets, tls=tuple(made))
    return OwnIdentity(home, replace(unlocked, secrets=secrets)), made
