import os
import resource
import socket
from pathlib import Path

import pytest

from node.rpc.limits import caller_socket, socket_name
from node.rpc.warden import ConnectionBounds, Connections, Warden, _shared

BOUNDS = ConnectionBounds(unknown_of_origin=3, unknown_seconds=20, of_account=2)


def _from(host: str, count: int, first: int = 1000) -> list[str]:
    return [socket_name(host, first + n) for n in range(count)]


def test_of_one_address_the_oldest_that_nobody_knows_are_ended() -> None:
    connections = Connections(BOUNDS)
    first, others = _from("192.0.2.1", 2), _from("192.0.2.2", 2)
    assert not connections.surplus([*first, *others], 0)
    more = _from("192.0.2.1", 3, 2000)
    assert set(connections.surplus([*first, *others, *more], 1)) == set(first)


def test_addresses_of_one_ipv6_network_are_one_origin() -> None:
    connections = Connections(BOUNDS)
    names = [socket_name(f"2001:db8::{n}", 1) for n in range(1, 5)]
    assert len(connections.surplus(names, 0)) == 1


def test_who_makes_no_call_in_time_is_ended_and_who_does_is_not() -> None:
    connections = Connections(BOUNDS)
    silent, caller = _from("192.0.2.1", 2)
    assert not connections.surplus([silent, caller], 0)
    connections.met(caller, "a clinic", 19)
    assert set(connections.surplus([silent, caller], 21)) == {silent}


def test_of_one_caller_those_that_it_used_last_stay_whatever_its_addresses() -> None:
    connections = Connections(BOUNDS)
    names = [*_from("192.0.2.1", 2), *_from("198.51.100.7", 2)]
    for now, name in enumerate(names):
        connections.met(name, "a clinic", now)
    connections.met("192.0.2.9 1", "another", 0)
    assert set(connections.surplus([*names, "192.0.2.9 1"], 4)) == set(names[:2])


def test_many_known_ones_of_one_address_are_nobodys_concern() -> None:
    """A network of hospitals may have one address; a relay's connections all have ours."""
    connections = Connections(BOUNDS)
    names = _from("192.0.2.1", 50)
    for n, name in enumerate(names):
        connections.met(name, f"clinic {n}", 0)
    assert not connections.surplus(names, 1000)


def test_who_is_not_trusted_any_more_is_unknown_again() -> None:
    connections = Connections(BOUNDS)
    (name,) = _from("192.0.2.1", 1)
    connections.met(name, "a clinic", 0)
    assert not connections.surplus([name], 100)
    for now in (101.0, 110.0):
        connections.lost(name, now)
    assert not connections.surplus([name], 120)
    assert set(connections.surplus([name], 122)) == {name}


def test_states_of_connections_that_are_gone_are_forgotten() -> None:
    connections = Connections(BOUNDS)
    for n in range(1000):
        connections.met(f"192.0.2.1 {n}", f"clinic {n}", 0)
    connections.surplus([], 100)
    assert not connections._states


def test_addresses_are_named_alike_by_grpc_and_by_the_kernel() -> None:
    assert caller_socket("ipv4:192.0.2.1:443") == socket_name("::ffff:192.0.2.1", 443)
    assert caller_socket("ipv6:%5B2001:db8::1%5D:443") == socket_name("2001:db8:0::1", 443)
    assert caller_socket("ipv6:%5Bfe80::1%25eth0%5D:443") == socket_name("fe80::1%eth0", 443)


def test_sockets_that_were_accepted_at_the_port_are_ended_and_no_others() -> None:
    warden = Warden(ConnectionBounds(unknown_of_origin=2, unknown_seconds=20))
    with socket.create_server(("127.0.0.1", 0)) as ours, socket.create_server(("", 0)) as other:
        pairs = [
            (socket.create_connection(("127.0.0.1", server.getsockname()[1])), server.accept()[0])
            for server in (ours, ours, ours, ours, other, other, other)
        ]
        warden.look(ours.getsockname()[1])
        assert warden.ended == 2
        for client, accepted in pairs:
            client.settimeout(5)
            accepted.setblocking(False)
        ends = [_is_ended(accepted) for _, accepted in pairs]
        assert ends == [True, True, False, False, False, False, False]
        for client, accepted in pairs:
            client.close()
            accepted.close()


def test_warden_without_a_descriptor_left_goes_on() -> None:
    """It is the one that would free some: it must not end, nor the node with it."""
    warden = Warden(ConnectionBounds(unknown_of_origin=0, unknown_seconds=20))
    with socket.create_server(("127.0.0.1", 0)) as ours:
        port = ours.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)), ours.accept()[0]:
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            try:
                warden.look(port)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert warden.ended == 0
            warden.look(port)
            assert warden.ended == 1


def test_look_at_what_is_no_socket_any_more_leaves_no_descriptor(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        before = os.listdir("/proc/self/fd")  # noqa: PTH208  # names are all that is compared
        with pytest.raises(OSError, match="non-socket"):
            _shared(file.fileno())
        assert os.listdir("/proc/self/fd") == before  # noqa: PTH208


def _is_ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False


def test_single_connection_is_dropped_once() -> None:
    connections = Connections(BOUNDS)
    one, other = _from("192.0.2.1", 2)
    connections.drop(one)
    assert set(connections.surplus([one, other], 0)) == {one}
    assert not connections.surplus([one, other], 1)


def test_local_users_cannot_end_what_we_bring_here_by_relay() -> None:
    connections = Connections(BOUNDS)
    relayed, seen_before, *local = _from("127.0.0.1", 6)
    assert not connections.surplus([seen_before], 0)
    with connections.brought(relayed, "relayed a"), connections.brought(seen_before, "relayed a"):
        assert not connections.surplus([relayed, seen_before], 1)
        assert set(connections.surplus([relayed, seen_before, *local], 2)) == {local[0]}
    assert not connections._brought
