"""Which of several connections to a peer a link goes on, and what becomes of one that fails."""

from typing import Any

import pytest
import trio

from node.errors import PeerUnreachable
from node.federation.connections.connection import Connection


def connected(count: int) -> tuple[Connection, list[Any]]:
    channels: list[Any] = [object() for _ in range(count)]
    return Connection(channel=channels[0], beside=channels[1:]), channels


def is_next(connection: Connection, channel: object) -> bool:
    return connection.emptiest is channel


def test_link_goes_on_the_connection_with_the_fewest() -> None:
    connection, (first, second, third) = connected(3)
    assert is_next(connection, first)
    with connection.linked(first), connection.linked(second):
        assert is_next(connection, third)
        with connection.linked(third), connection.linked(first):
            assert is_next(connection, second)
    assert is_next(connection, first)
    assert not connection.links
    connection.channel = None
    assert connection.emptiest is None, "the others are gone with the first"


def test_further_connection_that_fails_is_not_used_again() -> None:
    connection, (first, second) = connected(2)
    for channel in (first, second):
        with pytest.raises(PeerUnreachable), connection.linked(channel):
            raise PeerUnreachable("the link broke")
    assert connection.beside == []
    assert is_next(connection, first)


async def test_link_that_was_cancelled_says_nothing_of_its_connection() -> None:
    connection, (_, second) = connected(2)
    with trio.CancelScope() as scope, connection.linked(second):
        scope.cancel()
        await trio.sleep_forever()
    assert connection.beside == [second]
