"""SIGKILL at thirty moments, both nodes' chunks in an object store; see `test_kills.py`."""

from pathlib import Path

import pytest

from tests.integration.test_kills import Rounds, hold
from tests.support.nodes import Node, pair
from tests.support.seaweed import seaweed

KILLS, SECONDS_A_KILL = 30, 40


@pytest.mark.timeout(KILLS * SECONDS_A_KILL + 100)
@pytest.mark.long
@pytest.mark.slow
@pytest.mark.integration
def test_thirty_kills_lose_nothing_and_send_little_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "weed").mkdir()
    a, b = Node(tmp_path, "a", "Great Falls Clinic"), Node(tmp_path, "b", "Billings Hospital")
    with seaweed(tmp_path / "weed", volumes=100) as server:
        for node in (a, b):
            node.make(options=server.options(node.home.name))
        try:
            for node in (a, b):
                node.start()
            pair(a, b)
            hold(Rounds(a, b, tmp_path, KILLS, of_each=1), capsys, KILLS * SECONDS_A_KILL)
        finally:
            for node in (a, b):
                node.stop()
