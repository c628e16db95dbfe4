"""A node that runs for months: its certificate is renewed under its peers' eyes."""

from pathlib import Path

import pytest

from node.documents.identity import Identity
from tests.support.clock import Clock
from tests.support.dicom_files import study_uid, write_study
from tests.support.nodes import Node, pair, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def certificates(node: Node) -> tuple[bytes, ...]:
    file = node.home.with_suffix(".exported")
    node.run("id", "--export", str(file), "--no-qr")
    return Identity.decode(file.read_bytes()).certificates


def is_connected(node: Node) -> bool:
    return bool(node.json("peers")["peers"][0]["state"] == "connected")


def certificate_level(node: Node) -> str:
    found = node.json("doctor", statuses=(0, 1))["findings"]
    [level] = [f["level"] for f in found if f["subject"] == "certificate"]
    return str(level)


def test_certificate_is_renewed_while_the_node_runs(tmp_path: Path) -> None:
    """The last and the next stand side by side for ten days; then the last may run out."""
    clock = Clock(tmp_path)
    a, b = Node(tmp_path, "a", "Steady Clinic"), Node(tmp_path, "b", "Other Hospital")
    try:
        for node in (a, b):
            clock.put_on(node)
            node.make()
            node.start()
        pair(a, b)
        [first] = certificates(a)
        clock.set_day(61)  # 29 days are left
        wait_until(lambda: "certificate renewed" in a.log.read_text(), "it is not renewed", 60)
        assert certificates(a)[1] == first
        wait_until(lambda: "peer renewed" in b.log.read_text(), "the peer does not hear of it", 60)
        clock.set_day(95)  # the first has run out
        b.stop()
        b.start()
        wait_until(lambda: is_connected(a) and is_connected(b), "they are not connected", 60)
        write_study(tmp_path / "in", 1, 1)
        a.run("import", str(tmp_path / "in"))
        a.run("send", study_uid(1), b.display_name, "--wait")
        # The node looks every 30 s: just after the jump its doctor may still see the first.
        wait_until(lambda: certificate_level(a) == "ok", "the next is not in use", 60)
    finally:
        for node in (a, b):
            node.stop()


def test_nodes_stay_connected_for_91_days_without_a_restart(tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    a, b = Node(tmp_path, "a", "Steady Clinic"), Node(tmp_path, "b", "Other Hospital")
    try:
        for node in (a, b):
            clock.put_on(node)
            node.make()
            node.start()
        pair(a, b)

        def live_until(first: int, last: int) -> None:
            for day in range(first, last + 1):
                clock.set_day(day)
                wait_until(lambda: is_connected(a) and is_connected(b), f"apart on day {day}", 60)

        live_until(1, 62)
        for node in (a, b):
            wait_until(lambda n=node: "certificate renewed" in n.log.read_text(), "not renewed", 60)
            wait_until(lambda n=node: "peer renewed" in n.log.read_text(), "not heard of", 60)
        live_until(63, 75)
        for node in (a, b):
            wait_until(lambda n=node: certificate_level(n) == "ok", "the next is not in use", 60)
        live_until(76, 92)
        write_study(tmp_path / "in", 1, 1)
        a.run("import", str(tmp_path / "in"))
        a.run("send", study_uid(1), b.display_name, "--wait")
    finally:
        for node in (a, b):
            node.stop()
