"""Which of several connections to a peer a link goes on, and what becomes of one that fails."""

from contextlib import ExitStack
from typing import Any

import pytest
import trio

from node.errors import NodeError, PeerBusy, PeerTimeout, PeerUnreachable
from node.federation.connections.connection import Connection


def connected(stack: ExitStack, count: int) -> tuple[Connection, list[Any]]:
    channels: list[Any] = [object() for _ in range(count)]
    connection = Connection(channel=channels[0])
    for channel in channels[1:]:
        stack.enter_context(connection.used_beside(channel))
    return connection, channels


def is_next(connection: Connection, channel: object) -> bool:
    return connection.emptiest is channel


def test_link_goes_on_the_connection_with_the_fewest() -> None:
    with ExitStack() as stack:
        connection, (first, second, third) = connected(stack, 3)
        assert is_next(connection, first)
        with connection.linked(first), connection.linked(second):
            assert is_next(connection, third)
            with connection.linked(third), connection.linked(first):
                assert is_next(connection, second)
        assert is_next(connection, first)
        assert not connection.links
        connection.channel = None
        assert connection.emptiest is None, "the others are gone with the first"


@pytest.mark.parametrize("error", [PeerUnreachable("gone"), PeerTimeout("silent")])
def test_further_connection_that_breaks_is_not_used_again(error: NodeError) -> None:
    with ExitStack() as stack:
        connection, (first, second) = connected(stack, 2)
        broken = connection.beside[second]
        for channel in (first, second):
            with pytest.raises(ExceptionGroup), connection.linked(channel):
                raise ExceptionGroup("of a link", [error])
        assert not connection.beside
        assert broken.is_set()
        assert is_next(connection, first)


def test_peer_that_is_busy_says_nothing_of_its_connection() -> None:
    with ExitStack() as stack:
        connection, (_, second) = connected(stack, 2)
        with pytest.raises(PeerBusy), connection.linked(second):
            raise PeerBusy("later")
        assert list(connection.beside) == [second]


async def test_link_that_was_cancelled_says_nothing_of_its_connection() -> None:
    """With tasks of its own, what leaves it is a group of cancellations."""
    with ExitStack() as stack:
        connection, (_, second) = connected(stack, 2)
        with trio.CancelScope() as scope, connection.linked(second):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                nursery.start_soon(trio.sleep_forever)
                scope.cancel()
        assert list(connection.beside) == [second]
