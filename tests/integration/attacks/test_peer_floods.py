"""Calls that are refused, as fast as they go, take little of the node's one loop."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.attacks.connections import Crowd, make_peers, pin, started, way_of
from tests.support.nodes import Node

pytestmark = [pytest.mark.integration, pytest.mark.slow]
SECONDS, MOST_CORES = 12, 0.3
_PEER = "/emix.exchange.v1.ExchangeService/"
_INTRODUCTION = "/emix.introduction.v1.IntroductionService/GetStatements"


@pytest.mark.parametrize("method", ["GetAuditHeads", "Hello", "Watch", "introduction"])
def test_flood_of_refused_calls_takes_little_of_a_core(tmp_path: Path, method: str) -> None:
    """Of time and CPU time: a loaded machine makes the part smaller, never larger."""
    node = Node(tmp_path, "victim", "Victim Hospital")
    node.make()
    node.start()
    try:
        attacker, honest = make_peers(tmp_path, 2)
        identity = pin(node, [attacker, honest])
        way = way_of(node, identity, [attacker])
        if method == "introduction":
            way["address"] = node.addresses["introduction"]
            path, connections, streams = _INTRODUCTION, 16, 2
        else:
            path, connections, streams = _PEER + method, 8, 16
        shape: dict[str, Any] = {"connections": connections, "streams": streams}
        begun = time.monotonic()
        flood = started("flooding", path=path, seconds=SECONDS, **shape, **way)
        cores = _cores_of(node, flood)
        found = flood.ended()
        refused = found["problems"].get("StatusCode.RESOURCE_EXHAUSTED", 0)
        assert refused >= connections, found
        assert refused <= connections * streams * (time.monotonic() - begun), found
        assert cores < MOST_CORES, (cores, found)
        came = started("reconnecting", rounds=1, **way_of(node, identity, [honest])).ended()
        assert came["answered"] == [1], came
    finally:
        assert node.stop() == 0


def _cores_of(node: Node, flood: Crowd) -> float:
    """Return how much of a core a node takes until a flood is over."""
    cpu, begun = _cpu_seconds(node), time.monotonic()
    flood.process.wait(120)
    return (_cpu_seconds(node) - cpu) / (time.monotonic() - begun)


def _cpu_seconds(node: Node) -> float:
    assert node.process is not None
    fields = Path(f"/proc/{node.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
