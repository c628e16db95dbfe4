"""Racing a peer's addresses: the first that answers wins, and no slow one holds up the others."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from node.errors import PeerUnreachable, PeerUntrusted
from node.federation.routes.race import STAGGER_SECONDS, first_of, race


class Network:
    """Addresses that answer after some seconds, or refuse after some."""

    def __init__(self, answers: dict[str, float], refuses: dict[str, float]) -> None:
        self._answers, self._refuses = answers, refuses
        self.tried: list[str] = []
        self.names: dict[str, list[str]] = {}
        self.open = 0

    async def resolved(self, endpoint: str) -> list[str]:
        if endpoint == "nobody answers for it":
            await trio.sleep(10)
            raise PeerUnreachable(endpoint)
        await trio.lowlevel.checkpoint()
        return self.names.get(endpoint, [endpoint])

    async def connect(self, endpoint: str) -> None:
        self.tried.append(endpoint)
        if endpoint in self._answers:
            await trio.sleep(self._answers[endpoint])
            return
        await trio.sleep(self._refuses[endpoint])
        raise PeerUnreachable(endpoint)

    @asynccontextmanager
    async def opened(self, endpoint: str) -> AsyncGenerator[Any]:
        class Channel:
            async def connect(_, seconds: float) -> None:  # noqa: N805
                with trio.move_on_after(seconds) as waiting:
                    await self.connect(endpoint)
                if waiting.cancelled_caught:
                    raise PeerUnreachable(endpoint)

        self.open += 1
        try:
            yield Channel()
        finally:
            self.open -= 1


async def test_address_that_swallows_everything_holds_nobody_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = Network({"good": 0.1}, {"hole": 60})
    started = trio.current_time()
    async with await race(network.opened, ["hole", "good"], network.resolved) as won:
        assert won.endpoint == "good"
        assert trio.current_time() - started == pytest.approx(STAGGER_SECONDS + 0.1)
        assert network.open == 1, "the one that was made is handed over, the other closed"
    assert network.open == 0


async def test_first_address_has_a_head_start(autojump_clock: trio.testing.MockClock) -> None:
    network = Network({"near": 0.2, "far": 0.0}, {})
    async with await race(network.opened, ["near", "far"], network.resolved) as won:
        assert won.endpoint == "near"
    assert network.tried == ["near"]


async def test_refusal_lets_the_next_begin_at_once(autojump_clock: trio.testing.MockClock) -> None:
    network = Network({"c": 0.0}, {"a": 0.0, "b": 0.0})
    started = trio.current_time()
    async with await race(network.opened, ["a", "b", "c"], network.resolved) as won:
        assert won.endpoint == "c"
    assert trio.current_time() == started


@pytest.mark.parametrize("endpoints", [[], ["a"], ["a", "b"]])
async def test_nobody_answers(endpoints: list[str], autojump_clock: trio.testing.MockClock) -> None:
    network = Network({}, {"a": 1.0, "b": 99.0})
    with pytest.raises(PeerUnreachable):
        await race(network.opened, endpoints, network.resolved)
    assert network.open == 0


@pytest.mark.parametrize("seconds", [0.05, 0.1, 0.3])
async def test_who_stops_waiting_leaves_nothing_open(
    seconds: float, autojump_clock: trio.testing.MockClock
) -> None:
    network = Network({"good": 0.1}, {"hole": 60})
    with trio.move_on_after(seconds):
        async with await race(network.opened, ["good", "hole"], network.resolved):
            await trio.sleep_forever()
    assert network.open == 0


async def test_dead_address_of_a_name_costs_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = Network({"alive": 0.1}, {"hole": 60})
    network.names = {"name": ["hole", "alive"]}
    started = trio.current_time()
    async with await race(network.opened, ["name"], network.resolved) as won:
        assert won.endpoint == "name"
        assert trio.current_time() - started == pytest.approx(STAGGER_SECONDS + 0.1)
    assert network.open == 0


async def test_name_that_nobody_answers_for_holds_no_address_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = Network({"good": 0.1}, {})
    started = trio.current_time()
    endpoints = ["nobody answers for it", "good"]
    async with await race(network.opened, endpoints, network.resolved) as won:
        assert won.endpoint == "good"
    assert trio.current_time() - started == pytest.approx(STAGGER_SECONDS + 0.1)


async def test_first_answer_of_several_places_is_taken(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def ask(place: str) -> str:
        if place == "hole":
            await trio.sleep(60)
        if place != "good":
            raise (PeerUntrusted if place == "stranger" else PeerUnreachable)(place)
        await trio.sleep(0.1)
        return place

    started = trio.current_time()
    assert await first_of(["hole", "good"], ask) == "good"
    assert await first_of(["stranger", "good"], ask) == "good"
    assert trio.current_time() - started < 1
    with pytest.raises(PeerUntrusted):
        await first_of(["nobody", "stranger", "nobody"], ask)
    with pytest.raises(PeerUnreachable):
        await first_of([], ask)
