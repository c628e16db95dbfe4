"""Addresses from outside: a name or an address, and a port; nothing that gRPC reads otherwise."""

import pytest

from node.documents.identity import is_endpoint


@pytest.mark.parametrize(
    "text",
    [
        "localhost:1",
        "imaging.example.org:7410",
        "imaging.example.org.:65535",
        "10.0.0.1:443",
        "[2001:db8::1]:443",
        "host_with_underscore:80",
        "node-1:80",
    ],
)
def test_addresses_that_nodes_have(text: str) -> None:
    assert is_endpoint(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        ":80",
        "host:",
        "host:0",
        "host:65536",
        "host:000080999999",
        "host:\u0661",
        "unix:/var/lib/emix/admin.sock#:1",
        "unix:admin.sock:1",
        "dns://6.6.6.6:53/x:443",
        "google-c2p:///x:1",
        "ho st:1",
        "host\n:1",
        "-host:1",
        "[::1:1",
        "[fe80::1%eth0]:1",
        "[not an address]:1",
        "a" * 64 + ":1",
        ("a." * 200) + "a:1",
    ],
)
def test_what_is_none(text: str) -> None:
    assert not is_endpoint(text)
