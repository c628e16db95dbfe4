"""Whom a person means: a name first, and never by a beginning that anybody can have."""

import secrets
from pathlib import Path
from time import time

import pytest

from node.documents.identity import Identity
from node.documents.peers import Peer, find_peer
from node.errors import Conflict, NotFound
from tests.integration.hostile import HostilePeer


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


def test_id_that_begins_like_a_name_does_not_take_its_place(tmp_path: Path) -> None:
    a = make_peer(tmp_path, "Northside")
    beginning = str(a.facility_id).replace("-", "")[:20]
    elks = make_peer(tmp_path, beginning)  # the worst case: a name that an ID begins with
    assert find_peer([a, elks], beginning) is elks
    twin = make_peer(tmp_path, beginning)
    with pytest.raises(Conflict, match="use the Facility ID"):
        find_peer([elks, twin], beginning)
