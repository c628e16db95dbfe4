"""What peers are told to connect to: this machine's addresses as they now are, and no name."""

import ipaddress
import socket
from pathlib import Path
from time import time
from typing import Any

import ifaddr
import pytest
import trio

from node.app.home import Home, Unlocked
from node.app.statements import OwnIdentity
from node.crypto.certificates import make_tls_identity
from node.crypto.keyring import RootKey, Secrets
from node.crypto.keys import SealKey
from node.crypto.signing import SigningKey, node_id
from node.documents.identity import Identity, Profile
from node.documents.signed import DocumentSigner, certify_node
from node.errors import PeerUnreachable
from node.federation.routes import dialing
from node.federation.routes.dialing import Dialer, reachable, resolve_names_apart


@pytest.fixture(autouse=True)
def dead_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name may be looked up on the thread of the loop."""

    def look_up(*_: Any) -> Any:
        raise AssertionError("a name was looked up")

    for name in ("getfqdn", "gethostname", "gethostbyname", "gethostbyaddr"):
        monkeypatch.setattr(socket, name, look_up)


def has(monkeypatch: pytest.MonkeyPatch, *ips: str) -> None:
    """Have this machine have these addresses."""
    found = [ifaddr.IP((ip, 0, 0) if ":" in ip else ip, 64 if ":" in ip else 24, "e") for ip in ips]
    monkeypatch.setattr(ifaddr, "get_adapters", lambda: [ifaddr.Adapter("e", "e", found)])
    monkeypatch.setattr(dialing, "_preferred", lambda: None)


@pytest.mark.parametrize(
    ("listen", "told"),
    [
        ("0.0.0.0:7410", ("10.1.2.3:7410", "10.7.7.7:7410")),
        ("[::]:7410", ("10.1.2.3:7410", "10.7.7.7:7410", "[2001:db8::7]:7410")),
        ("10.1.2.3:7410", ("10.1.2.3:7410",)),
        ("imaging.example.org:7410", ("imaging.example.org:7410",)),
        ("127.0.0.1:7410", ("127.0.0.1:7410",)),
        ("localhost:7410", ()),
    ],
)
def test_peers_are_told_addresses_and_never_localhost(
    listen: str, told: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    has(monkeypatch, "127.0.0.1", "10.1.2.3", "169.254.7.7", "10.7.7.7", "fe80::1", "2001:db8::7")
    assert reachable(listen) == told


def test_machine_without_a_network_tells_nobody_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch, "127.0.0.1")
    assert reachable("0.0.0.0:7410") == ()


def test_address_from_which_this_machine_reaches_others_is_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    has(monkeypatch, "172.17.0.1", "10.1.2.3")
    monkeypatch.setattr(dialing, "_preferred", lambda: ipaddress.IPv4Address("10.1.2.3"))
    assert reachable("0.0.0.0:7410") == ("10.1.2.3:7410", "172.17.0.1:7410")


def test_changed_address_is_stated_later_than_the_last(tmp_path: Path) -> None:
    """Peers take later statements only."""
    node = SigningKey.new()
    signer = DocumentSigner(node, certify_node(SigningKey.new(), node, time()))
    tls = make_tls_identity(node_id(node.public), time())
    secrets = Secrets(node, (SealKey.new(),), (tls,), {1: bytes(32)})
    own = OwnIdentity(Home(tmp_path), Unlocked(RootKey.new(), secrets, signer))

    def stated(*endpoints: str) -> Identity:
        return Identity.decode(own.statements(Profile("A", endpoints, issued_seconds=0)))

    first, again = stated("10.1.2.3:7410"), stated("10.1.2.3:7410")
    assert first.order == again.order
    moved = stated("10.1.2.9:7410")
    assert moved.order > first.order
    assert stated("10.1.2.9:7410").order == moved.order


class _Names(trio.abc.HostnameResolver):
    async def getaddrinfo(self, host: Any, port: Any, *_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        if host != b"name.example.org":
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        found = ["2001:db8::7", "10.1.2.3"]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in found]

    async def getnameinfo(self, *_: Any) -> Any:
        raise AssertionError("no address is asked for its name")


async def test_endpoint_is_the_addresses_of_its_name() -> None:
    trio.socket.set_custom_hostname_resolver(_Names())
    dialer = Dialer()
    assert await dialer.addresses("10.1.2.3:7410") == ("10.1.2.3:7410",)
    found = await dialer.addresses("name.example.org:7410")
    assert found == ("[2001:db8::7]:7410", "10.1.2.3:7410")
    with pytest.raises(PeerUnreachable):
        await dialer.addresses("nobody.example.org:7410")
    resolve_names_apart()
