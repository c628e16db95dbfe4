"""What peers say that they understand."""

from hypothesis import given
from hypothesis import strategies as st

from node.domain.capabilities import MOST_READ, Capability, known
from node.domain.ids import FacilityId
from node.federation.connections.capabilities import Capabilities


def test_own_capabilities_are_known_to_this_version() -> None:
    assert known(list(Capability)) == frozenset(Capability)


def test_names_past_the_bound_and_long_ones_are_not_read() -> None:
    assert known(["x"] * MOST_READ + ["attachments"]) == frozenset()
    assert known(["attachments" + "x" * 100]) == frozenset()


@given(st.lists(st.text()))
def test_unknown_names_mean_nothing(names: list[str]) -> None:
    assert known(names) == frozenset(c for c in Capability if c in names[:MOST_READ])


def test_peer_that_says_less_with_its_next_hello_understands_less() -> None:
    peer, other = FacilityId(bytes(32)), FacilityId(b"o" * 32)
    capabilities = Capabilities(frozenset())
    assert not capabilities.of(peer)
    capabilities.note(peer, list(Capability))
    assert capabilities.of(peer) == frozenset(Capability)
    assert not capabilities.of(other)
    capabilities.note(peer, [])
    assert not capabilities.of(peer)
