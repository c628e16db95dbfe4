import resource

import pytest

from node.federation import relaying
from node.rpc import door
from node.rpc.descriptors import fitted, spliced
from node.rpc.serving import INTRODUCTION_OPTIONS, PEER_OPTIONS

BOUND = "grpc.max_allowed_incoming_connections"


@pytest.mark.parametrize("limit", [512, 1024, 4096, 65_536])
def test_connections_of_all_doors_leave_the_store_its_descriptors(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    doors = (fitted(PEER_OPTIONS, 1 / 2), fitted(INTRODUCTION_OPTIONS, 1 / 4))
    most = [dict(options)[BOUND] for options in doors]
    through = spliced(door.MAX_CONNECTIONS, door.SHARE)
    relayed = spliced(relaying.MAX_ACCEPTED, relaying.SHARE)
    assert sum(most) + 7 * (through + relayed) <= limit - 256
    assert through <= door.MAX_CONNECTIONS
    assert most[0] <= 4096
