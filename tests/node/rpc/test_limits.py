"""Who calls too often is sent away, by whatever addresses it has."""

from collections.abc import Callable

import pytest

from node.errors import PeerBusy
from node.rpc import limits
from node.rpc.limits import Places, RateLimit, caller_origin


@pytest.mark.parametrize(
    ("address", "counts_for"),
    [
        ("ipv4:192.0.2.7:51234", "192.0.2.7"),
        ("ipv6:%5B::ffff:192.0.2.7%5D:51234", "192.0.2.7"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:51234", "2001:db8:1:2::/64"),
        ("ipv6:%5B2001:db8:1:2:ffff::1%5D:1", "2001:db8:1:2::/64"),
        ("ipv6:%5Bfe80::1%25eth0%5D:1", "fe80::/64"),
        ("unix:/tmp/x.sock", "unix:/tmp/x.sock"),
        ("", ""),
    ],
)
def test_calls_count_for_an_address_or_its_network(address: str, counts_for: str) -> None:
    assert caller_origin(address) == counts_for


def test_one_caller_does_not_shut_out_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 30.0)
    limit = RateLimit(3, in_all=5)
    for _ in range(3):
        limit.count("a")
    for _ in range(10):
        with pytest.raises(PeerBusy):
            limit.count("a")
    limit.count("b")
    limit.count("c")
    with pytest.raises(PeerBusy):
        limit.count("d")
    monkeypatch.setattr("time.monotonic", lambda: 61.0)
    limit.count("a")


def test_callers_without_end_fill_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_MAX_CALLERS", 10)
    limit = RateLimit(3, in_all=10**6)
    for n in range(1000):
        limit.count(str(n))
    assert len(limit._counts) == 10


def test_places_of_a_caller_come_back_when_its_calls_end() -> None:
    places, ends = Places(2), list[Callable[[], None]]()
    for _ in range(2):
        places.take("a clinic", ends.append)
    with pytest.raises(PeerBusy):
        places.take("a clinic", ends.append)
    places.take("another", ends.append)
    ends[0]()
    places.take("a clinic", ends.append)
    for end in ends[1:]:
        end()
    assert not places._taken
