"""New keys for a directory: all of them, or none, wherever that is cut off."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from time import time

import pytest
import trio

from directory_service import rotation
from directory_service.home import Home, database_key, make_home
from directory_service.operator import OperatorKey
from directory_service.rotation import renew, rotate, settle
from directory_service.sessions import Sessions
from directory_service.sqlite import SqliteEngine
from directory_service.storage import Storage, StoredMember
from node.domain.ids import FacilityId, InvitationId, NodeId
from node.errors import ConfigError, PeerUntrusted, StoreError, StoreLocked

KEY = OperatorKey.new("Montana", ("127.0.0.1:1",), time())
MEMBER = StoredMember(InvitationId(b"i" * 32), FacilityId(b"f" * 32), b"membership", 1)
_PARTS = ("directory.key", "ticket.cert", "tls.key", "tls.pem")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with one member in its database."""
    found = Home(tmp_path / "directory")
    make_home(
        found,
        KEY,
        listen="127.0.0.1:1",
        database="",
        relay_listen="",
        relays=("relay.example.org:443",),
        signed_list=b"",
        keep_key=lambda: None,
    )
    with_storage(found, lambda storage: storage.enroll(MEMBER))
    return found


def with_storage(home: Home, work: Callable[[Storage], Awaitable[object]]) -> object:
    async def run() -> object:
        storage = Storage(SqliteEngine(home.database, database_key(home.key())))
        try:
            return await work(storage)
        finally:
            await storage.aclose()

    return trio.run(run)


def members(home: Home) -> object:
    return with_storage(home, lambda storage: storage.members())


def parts(home: Home) -> list[bytes]:
    return [(home.root / name).read_bytes() for name in _PARTS]


def test_all_keys_are_new_and_the_database_is_kept(home: Home) -> None:
    before = parts(home)
    session = Sessions(home.key()).open(NodeId(b"n" * 32), MEMBER.facility, 1, time())
    rotate(home, KEY)
    assert not set(before) & set(parts(home))
    assert members(home) == [MEMBER]
    home.tickets()  # with the network's word
    with pytest.raises(PeerUntrusted):
        Sessions(home.key()).check(session, time())
    with pytest.raises(StoreError):
        SqliteEngine(home.database, database_key(before[0]))
    assert sorted(p.name for p in home.root.iterdir() if "next" in p.name) == []


@pytest.mark.parametrize("cut_off", ["write_new", "change_key", "replace_all", "renew"])
@pytest.mark.parametrize("is_after", [False, True])
def test_cut_off_anywhere_it_is_finished_or_undone(
    home: Home, cut_off: str, is_after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PowerCut(BaseException):
        pass

    real = getattr(rotation, cut_off)

    def cut(*arguments: object) -> None:
        if is_after:
            real(*arguments)
        raise PowerCut

    before = parts(home)
    with monkeypatch.context() as patched:
        patched.setattr(rotation, cut_off, cut)
        with pytest.raises(PowerCut):
            rotate(home, KEY)
    settle(home)
    assert members(home) == [MEMBER]
    if home.key() != before[0]:
        if parts(home)[1] == before[1]:
            with pytest.raises(ConfigError, match="emix-directory renew"):
                home.tickets()
        renew(home, KEY)
    home.tickets()
    assert not (home.root / "directory.next").exists()
    rotate(home, KEY)  # and once more, in peace
    assert members(home) == [MEMBER]


def test_running_directory_and_another_networks_key_change_nothing(home: Home) -> None:
    before = parts(home)
    with home.locked(), pytest.raises(StoreLocked):
        rotate(home, KEY)
    other = OperatorKey.new("Other", ("127.0.0.1:1",), time())
    for key in (other, KEY.list_key(time() + 1000)):
        with pytest.raises(ConfigError, match="network key"):
            rotate(home, key)
    assert parts(home) == before


def test_damaged_database_is_left_as_it_is_and_said_so(home: Home) -> None:
    home.database.write_bytes(b"noise" * 10_000)
    key = home.key()
    with pytest.raises(StoreError):
        rotate(home, KEY)
    settle(home)
    assert home.key() == key


def test_relay_that_the_network_has_not_named_is_known_until_renewed(home: Home) -> None:
    assert home.unnamed_relays() == []
    text = home.config.read_text()
    named, added = '"relay.example.org:443"', "other.example.org:443"
    home.config.write_text(text.replace(named, f'{named}, "{added}"'))
    assert home.unnamed_relays() == [added]
    renew(home, KEY)
    assert home.unnamed_relays() == []
