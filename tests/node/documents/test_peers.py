"""Whom a person means: a name first, and never by a beginning that anybody can have."""

import secrets
from dataclasses import replace
from pathlib import Path
from time import time

import pytest

from node.documents.identity import Identity
from node.documents.peers import Peer, alike_warning, find_peer
from node.errors import Conflict, NotFound
from tests.support.hostile import HostilePeer


def make_peer(folder: Path, name: str) -> Peer:
    identity = Identity.decode(HostilePeer(folder, secrets.token_hex(4)).statements())
    return Peer(identity, "", "id", "me", time(), None, 0.0, name=name)


def test_name_or_id_or_a_long_beginning_of_one_finds_a_peer(tmp_path: Path) -> None:
    a, b = make_peer(tmp_path, "Elks"), make_peer(tmp_path, "Northside")
    whole = str(a.facility_id)
    for text in ("elks", " Elks ", whole, whole.lower(), whole.replace("-", ""), whole[:20]):
        assert find_peer([a, b], text) is a
    for text in (whole[:4], whole[:7], whole[:15], "", "Elk"):
        with pytest.raises(NotFound, match="16 characters"):
            find_peer([a, b], text)


def test_id_goes_first_and_what_looks_like_one_is_nobodys_name(tmp_path: Path) -> None:
    """A facility that calls itself like another's ID gets nothing of what is meant for it."""
    a = make_peer(tmp_path, "Northside")
    whole = str(a.facility_id)
    for text in (whole, whole.lower(), whole.replace("-", " "), whole[:20], whole[:18]):
        thief = make_peer(tmp_path, text)
        assert find_peer([thief, a], text) is a
        with pytest.raises(NotFound):
            find_peer([thief], text)


def test_names_that_look_alike_are_not_sent_to_by_name(tmp_path: Path) -> None:
    a, b = make_peer(tmp_path, "Billings Hospital"), make_peer(tmp_path, "\u0412illings  Hospital")
    for text in ("Billings Hospital", "\u0412illings Hospital", "billings hospital"):
        with pytest.raises(Conflict, match="use the Facility ID") as caught:
            find_peer([a, b], text)
        assert all(str(peer.facility_id) in str(caught.value) for peer in (a, b))
    assert find_peer([a, b], str(b.facility_id)) is b
    assert find_peer([a], " billings  HOSPITAL") is a
    with pytest.raises(NotFound, match=f"looks like it.*{b.facility_id}"):
        find_peer([b], "Billings Hospital")


def test_two_peers_of_one_name_are_warned_of_until_one_is_removed(tmp_path: Path) -> None:
    a, b = make_peer(tmp_path, "Billings Hospital"), make_peer(tmp_path, "\u0412illings  Hospital")
    other = make_peer(tmp_path, "Elks")
    for one in (a, b):
        warning = alike_warning(one, [a, b, other])
        assert all(str(peer.facility_id) in warning for peer in (a, b))
    assert alike_warning(other, [a, b, other]) == ""
    assert alike_warning(a, [a, replace(b, removed_time=1.0), other]) == ""


def test_many_of_one_name_are_not_all_listed(tmp_path: Path) -> None:
    """An error's text is bounded."""
    peers = [make_peer(tmp_path, "N" * 100) for _ in range(7)]
    with pytest.raises(Conflict, match=r"7 facilities .* and 3 more") as caught:
        find_peer(peers, "N" * 100)
    assert len(str(caught.value)) < 1000
