import resource

import pytest

from node.federation.routes import relaying
from node.rpc import door
from node.rpc.descriptors import fitted, raise_limit, spliced
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


@pytest.mark.parametrize(
    ("soft", "hard", "raised"),
    [
        (1024, 524_288, 524_288),
        (1024, resource.RLIM_INFINITY, 1 << 20),
        (1024, 1 << 30, 1 << 20),
        (1 << 30, 1 << 30, None),
        (4096, 4096, None),
    ],
)
def test_limit_is_raised_to_the_hard_one(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised: int | None
) -> None:
    found: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: found.append(limits))
    raise_limit()
    assert found == ([] if raised is None else [(raised, hard)])
