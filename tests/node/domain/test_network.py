"""What a node knows of a network only grows: whatever a directory shows, in whatever order."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from node.domain.ids import FacilityId, InvitationId, NetworkId
from node.domain.network import ListProblem, NetworkList, NetworkView, Standing

NETWORK = NetworkId(bytes(32))
INVITATIONS = [InvitationId(bytes([n]) * 32) for n in range(4)]
FACILITIES = [FacilityId(bytes([n]) * 32) for n in range(4)]
EXPIRES = 1000.0

lists = st.builds(
    lambda epoch, number, members, revoked, list_key_expires: NetworkList(
        NETWORK,
        number,
        0.0,
        EXPIRES,
        members,
        frozenset(revoked),
        repr((epoch, number, sorted(members.items()), sorted(revoked), list_key_expires)).encode(),
        epoch,
        list_key_expires,
    ),
    st.integers(1, 2),
    st.integers(1, 5),
    st.dictionaries(st.sampled_from(INVITATIONS), st.sampled_from(FACILITIES)),
    st.sets(st.sampled_from(INVITATIONS)),
    st.sampled_from([None, EXPIRES]),
)


@given(st.lists(lists, max_size=12))
def test_view_never_goes_back(shown: list[NetworkList]) -> None:
    view = NetworkView()
    for one in shown:
        following = view.after(one, 0.0)
        known = view.latest
        if isinstance(following, ListProblem):
            assert known is not None
            older = one.place < known.place
            assert following is (ListProblem.OLDER if older else ListProblem.TWO_LISTS)
            continue
        assert following.latest is not None
        assert known is None or following.latest.place >= known.place
        is_same_epoch = known is None or known.epoch == one.epoch
        assert following.revoked >= one.revoked | (view.revoked if is_same_epoch else view.final)
        assert following.final >= view.final | one.final
        view = following


@given(st.lists(lists, max_size=8), st.sampled_from(INVITATIONS), st.sampled_from(FACILITIES))
def test_member_is_who_is_listed_and_not_revoked_for_ever_or_in_this_epoch(
    shown: list[NetworkList], invitation: InvitationId, facility: FacilityId
) -> None:
    view, taken = NetworkView(), list[NetworkList]()
    for one in shown:
        following = view.after(one, 0.0)
        if not isinstance(following, ListProblem):
            view = following
            taken.append(one)
    epoch = view.place[0]
    revoked = {i for one in taken for i in (one.revoked if one.epoch == epoch else one.final)}
    listed = view.latest.members if view.latest else {}
    standing = view.standing(invitation, facility, EXPIRES - 1)
    is_member = listed.get(invitation) == facility and invitation not in revoked
    assert (standing is Standing.MEMBER) == is_member
    late = view.standing(invitation, facility, EXPIRES)
    assert late in (Standing.LIST_EXPIRED, Standing.REVOKED, Standing.PROVISIONAL)
    assert late is not Standing.PROVISIONAL or view.latest is None


def test_second_facility_on_one_invitation_is_told_apart_from_one_not_listed_yet() -> None:
    one = NetworkList(
        NETWORK, 1, 0.0, EXPIRES, {INVITATIONS[0]: FACILITIES[0]}, frozenset(), b"digest"
    )
    view = NetworkView().after(one, 0.0)
    assert isinstance(view, NetworkView)
    assert view.standing(INVITATIONS[0], FACILITIES[1], 0) is Standing.OTHER_FACILITY
    assert view.standing(INVITATIONS[1], FACILITIES[1], 0) is Standing.PROVISIONAL


def listed(epoch: int, number: int, *revoked: int, expires: float = EXPIRES) -> NetworkList:
    """A list by a list key, that names the first facility."""
    gone = frozenset(INVITATIONS[n] for n in revoked)
    members = {INVITATIONS[0]: FACILITIES[0]}
    digest = repr((epoch, number, revoked)).encode()
    return NetworkList(NETWORK, number, 0.0, expires, members, gone, digest, epoch, expires)


def taken(view: NetworkView, one: NetworkList, now: float = 0.0) -> NetworkView:
    following = view.after(one, now)
    assert isinstance(following, NetworkView)
    return following


def test_list_that_had_expired_is_not_taken_over_and_one_that_was_kept_stays() -> None:
    assert NetworkView().after(listed(1, 9), EXPIRES) is ListProblem.EXPIRED
    view = taken(NetworkView(), listed(1, 1), EXPIRES - 1)
    assert view.after(listed(1, 1), EXPIRES + 1) is view
    assert view.after(listed(1, 2), EXPIRES) is ListProblem.EXPIRED


def test_network_key_undoes_what_a_stolen_list_key_revoked_and_not_what_it_revoked_itself() -> None:
    by_network = replace(listed(1, 1, 1), list_key_expires=None)
    thiefs = listed(1, 2**30, 0, 1, 2)
    view = taken(taken(NetworkView(), by_network), thiefs)
    assert view.standing(INVITATIONS[0], FACILITIES[0], 0) is Standing.REVOKED
    recovered = replace(listed(2, 1, 3), list_key_expires=None)
    view = taken(view, recovered)
    assert view.standing(INVITATIONS[0], FACILITIES[0], 0) is Standing.MEMBER
    assert view.revoked == view.final == {INVITATIONS[1], INVITATIONS[3]}
    assert view.after(listed(1, 2**31), 0.0) is ListProblem.OLDER


def test_who_joined_in_a_later_epoch_takes_no_list_of_an_earlier_one() -> None:
    view = NetworkView(least_epoch=2)
    assert view.after(listed(1, 7), 0.0) is ListProblem.OLDER
    assert taken(view, listed(2, 1)).place == (2, 1)
