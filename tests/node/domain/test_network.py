"""What a node knows of a network only grows: whatever a directory shows, in whatever order."""

from hypothesis import given
from hypothesis import strategies as st

from node.domain.ids import FacilityId, InvitationId, NetworkId
from node.domain.network import ListProblem, NetworkList, NetworkView, Standing

NETWORK = NetworkId(bytes(32))
INVITATIONS = [InvitationId(bytes([n]) * 32) for n in range(4)]
FACILITIES = [FacilityId(bytes([n]) * 32) for n in range(4)]
EXPIRES = 1000.0

lists = st.builds(
    lambda number, members, revoked: NetworkList(
        NETWORK,
        number,
        0.0,
        EXPIRES,
        members,
        frozenset(revoked),
        repr((number, sorted(members.items()), sorted(revoked))).encode(),
    ),
    st.integers(1, 5),
    st.dictionaries(st.sampled_from(INVITATIONS), st.sampled_from(FACILITIES)),
    st.sets(st.sampled_from(INVITATIONS)),
)


@given(st.lists(lists, max_size=12))
def test_view_never_goes_back(shown: list[NetworkList]) -> None:
    view = NetworkView()
    for one in shown:
        following = view.after(one)
        known = view.latest
        if isinstance(following, ListProblem):
            assert known is not None
            older = one.number < known.number
            assert following is (ListProblem.OLDER if older else ListProblem.TWO_LISTS)
            continue
        assert following.latest is not None
        assert known is None or following.latest.number >= known.number
        assert following.revoked >= view.revoked | one.revoked
        view = following


@given(st.lists(lists, max_size=8), st.sampled_from(INVITATIONS), st.sampled_from(FACILITIES))
def test_member_is_who_is_listed_and_was_never_revoked(
    shown: list[NetworkList], invitation: InvitationId, facility: FacilityId
) -> None:
    view, ever_revoked = NetworkView(), set[InvitationId]()
    for one in shown:
        following = view.after(one)
        if not isinstance(following, ListProblem):
            view = following
            ever_revoked |= one.revoked
    listed = view.latest.members if view.latest else {}
    standing = view.standing(invitation, facility, EXPIRES - 1)
    is_member = listed.get(invitation) == facility and invitation not in ever_revoked
    assert (standing is Standing.MEMBER) == is_member
    late = view.standing(invitation, facility, EXPIRES)
    assert late in (Standing.LIST_EXPIRED, Standing.REVOKED, Standing.PROVISIONAL)
    assert late is not Standing.PROVISIONAL or view.latest is None


def test_second_facility_on_one_invitation_is_told_apart_from_one_not_listed_yet() -> None:
    one = NetworkList(
        NETWORK, 1, 0.0, EXPIRES, {INVITATIONS[0]: FACILITIES[0]}, frozenset(), b"digest"
    )
    view = NetworkView().after(one)
    assert isinstance(view, NetworkView)
    assert view.standing(INVITATIONS[0], FACILITIES[1], 0) is Standing.OTHER_FACILITY
    assert view.standing(INVITATIONS[1], FACILITIES[1], 0) is Standing.PROVISIONAL
