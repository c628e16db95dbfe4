"""Events are acted on before `publish` returns; a feed keeps the latest for each key."""

import pytest
import trio

from node.domain.events import DialBackAsked, Event, NetworksChanged, PinsChanged
from node.domain.ids import FacilityId
from node.exchange.events import Events, Feed


async def test_publish_returns_once_all_subscribers_of_the_event_have_acted_in_order() -> None:
    events, done = Events(), list[str]()

    async def first(_: Event) -> None:
        await trio.lowlevel.checkpoint()
        done.append("first")

    async def second(_: Event) -> None:
        done.append("second")

    events.subscribe(PinsChanged, first)
    events.subscribe(PinsChanged, second)
    await events.publish(NetworksChanged())
    assert done == []
    await events.publish(PinsChanged())
    assert done == ["first", "second"]


async def test_error_of_a_subscriber_is_the_publishers() -> None:
    events = Events()

    async def refuse(asked: DialBackAsked) -> None:
        raise ValueError(asked.facility.short())

    events.subscribe(DialBackAsked, refuse)
    with pytest.raises(ValueError):
        await events.publish(DialBackAsked(FacilityId(bytes(32))))


async def test_slow_subscriber_gets_the_newest_value_of_each_key_in_order_of_change() -> None:
    feed = Feed[int]()
    with feed.subscribed() as changed:
        for key, value in (("a", 1), ("b", 2), ("a", 3)):
            feed.publish(key, value)
        assert [await changed.next(), await changed.next()] == [2, 3]
        with trio.move_on_after(0.01) as waiting:
            await changed.next()
        assert waiting.cancelled_caught
    feed.publish("a", 4)  # nobody subscribes any more
