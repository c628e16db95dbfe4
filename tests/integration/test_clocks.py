"""One start with a wrong clock destroys nothing, and heals once the clock is right."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.documents.identity import Identity
from tests.integration.test_policy import age_packages
from tests.support.clock import Clock
from tests.support.dicom_files import study_uid, write_study
from tests.support.nodes import CommandFailed, Node, pair, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]
_YEARS_AHEAD, _BEFORE_COMPUTERS = 10 * 365, -56 * 365


@pytest.fixture
def clocks(tmp_path: Path) -> tuple[Clock, Clock]:
    """The clocks of the two nodes."""
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        made.append(Clock(tmp_path / name))
    return made[0], made[1]


@pytest.fixture
def nodes(tmp_path: Path, clocks: tuple[Clock, Clock]) -> Iterator[tuple[Node, Node]]:
    a, b = Node(tmp_path, "clinic", "Great Falls Clinic"), Node(tmp_path, "hospital", "Billings")
    for node, clock in zip((a, b), clocks, strict=True):
        clock.put_on(node)
        node.make()
    yield a, b
    for node in (a, b):
        node.stop()


def connected(node: Node) -> bool:
    return bool(node.json("peers")["peers"][0]["state"] == "connected")


def certificates(node: Node) -> tuple[bytes, ...]:
    file = node.home.with_suffix(".exported")
    node.run("id", "--export", str(file), "--no-qr")
    return Identity.decode(file.read_bytes()).certificates


def clock_finding(node: Node) -> dict[str, str]:
    found = node.json("doctor", statuses=(0, 1))["findings"]
    return next(f for f in found if f["subject"] == "clock")


@pytest.mark.parametrize("wrong", [_YEARS_AHEAD, _BEFORE_COMPUTERS], ids=["2036", "1970"])
def test_one_start_with_a_wrong_clock_destroys_nothing_and_heals(
    wrong: int, nodes: tuple[Node, Node], clocks: tuple[Clock, Clock], tmp_path: Path
) -> None:
    (a, b), (_, wrong_clock) = nodes, clocks
    b.set(incoming='"ask"', retention_days="30")
    for node in (a, b):
        node.start()
    pair(a, b)
    for n in (1, 2):
        a.run("import", str(write_study(tmp_path / f"s{n}", n, 2)))
        a.run("send", study_uid(n), b.display_name)
        wait_until(lambda: b.json("inbox")["offers"], "the offer does not come")
        if n == 1:
            b.run("accept", f"t{b.json('inbox')['offers'][0]['number']}")
            wait_until(lambda: b.json("studies")["studies"], "the study does not come")
            b.run("study", study_uid(1))
            age_packages(b, days=10)  # looked at, and younger than the policy keeps it
            wait_until(lambda: connected(a) and connected(b), "they are apart", 60)
    own = certificates(b)
    entries = len(b.json("audit")["entries"])

    b.stop()
    wrong_clock.set_day(wrong)
    b.start()
    wait_until(lambda: "the clock is suspect" in b.log.read_text(), "nothing is noticed")
    assert any("clock" in alarm for alarm in b.json("status")["alarms"])
    finding = clock_finding(b)
    assert finding["level"] == "problem"
    assert ("ahead of" if wrong > 0 else "behind") in finding["text"]
    with pytest.raises(CommandFailed, match="nothing is deleted"):
        b.run("retention")
    threading.Event().wait(3)  # for what is done at the start
    assert len(b.json("studies")["studies"]) == 1
    assert len(b.json("inbox")["offers"]) == 1
    assert certificates(b) == own, "no certificate of another time"
    for entry in b.json("audit")["entries"][entries:]:
        assert abs(int(entry["time_milliseconds"]) / 1000 - time.time()) < 86400, entry

    wrong_clock.set_day(0)
    wait_until(lambda: connected(a) and connected(b), "they are not connected again", 90)
    wait_until(lambda: clock_finding(b)["level"] == "ok", "the clock is not believed again", 60)
    b.run("accept", f"t{b.json('inbox')['offers'][0]['number']}")
    wait_until(lambda: len(b.json("studies")["studies"]) == 2, "the offer came to nothing", 60)
    assert json.loads(b.run("retention", "--json"))["deleted"] == 0
    assert {t["state"] for t in a.json("transfers")["transfers"]} == {"delivered"}


def test_command_with_a_wrong_clock_is_not_believed_at_the_next_start(
    nodes: tuple[Node, Node], clocks: tuple[Clock, Clock]
) -> None:
    (a, b), (_, wrong_clock) = nodes, clocks
    for node in (a, b):
        node.start()
    pair(a, b)
    own = certificates(b)
    b.stop()
    wrong_clock.set_day(_YEARS_AHEAD)
    b.run("keys", "rotate-seal")
    b.run("keys", "rotate-epoch")
    for command in ("renew", "replace"):
        with pytest.raises(CommandFailed, match="ahead of the last recorded time"):
            b.run("node", command, "--recovery-kit", str(b.kit))
    wrong_clock.set_day(0)
    b.start()
    assert certificates(b) == own
    assert clock_finding(b)["level"] == "ok"
    wait_until(lambda: connected(a) and connected(b), "they are not connected again", 90)
    for entry in b.json("audit")["entries"]:
        assert abs(int(entry["time_milliseconds"]) / 1000 - time.time()) < 86400, entry


def test_clocks_that_differ_are_said_to(
    nodes: tuple[Node, Node], clocks: tuple[Clock, Clock], tmp_path: Path
) -> None:
    """Two hours: TLS lets both in, so that it can be said."""
    (a, b), (_, ahead) = nodes, clocks
    ahead.set_hours(2)
    for node in (a, b):
        node.start()
    file = b.home.with_suffix(".emix")
    b.run("id", "--export", str(file), "--no-qr")
    with pytest.raises(CommandFailed, match="2 hours ahead of this node's clock"):
        a.run("peers", "pair", str(file))
    ahead.set_hours(0)
    b.stop()
    b.start()
    pair(a, b)

    def problem(node: Node) -> str:
        return str(node.json("peers")["peers"][0].get("problem", ""))

    for n in (1, 2):
        ahead.set_hours(2)
        b.stop()
        b.start()
        for node in (a, b):
            wait_until(lambda n=node: "2 hours" in problem(n), "it is not said", 30)
            assert problem(node).startswith("the clock of facility ")
        assert clock_finding(b)["level"] == "problem", "doctor can fail"
        b.run("import", str(write_study(tmp_path / f"s{n}", n, 1)))
        ahead.set_hours(0)  # the newest entry of the audit log is of a time to come
        wait_until(lambda: connected(a) and connected(b), "they are not connected again", 60)
        assert clock_finding(b)["level"] == "ok"
