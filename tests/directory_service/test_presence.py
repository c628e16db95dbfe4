"""Processes agree on who is online, whatever is lost between them."""

import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.testing

from directory_service import presence as presence_module
from directory_service.bus import BusMessage
from directory_service.presence import ALIVE_SECONDS, DEAD_SECONDS, Presence
from directory_service.registry import Registry
from node.crypto.signing import SigningKey
from node.domain.ids import NodeId

KEY = SigningKey.new().public
SOON = 5 * ALIVE_SECONDS


def node(n: int) -> NodeId:
    return NodeId(n.to_bytes(32, "big"))


class Way:
    """The way between processes: what is told on it may be lost, or not get onto it at all."""

    def __init__(self) -> None:
        self.processes: dict[str, Process] = {}
        self.random = random.Random(7)
        self.lost = 0.0
        self.deaf: set[str] = set()
        self.is_broken = False
        self.told = 0

    async def publish(self, news: BusMessage) -> bool:
        if self.is_broken:
            return False
        self.told += 1
        for process in list(self.processes.values()):
            is_lost = self.random.random() < self.lost or process.name in self.deaf
            if process.name != news.process and not is_lost:
                with suppress(ValueError):
                    await process.presence.take(news)
        return True


class Process:
    """One process, and the nodes that are at it."""

    def __init__(self, name: str, way: Way) -> None:
        self.name = name
        self.registry = Registry(KEY)
        self.changed: list[NodeId] = []
        self.presence = Presence(name, self.registry, way.publish, self.changed.append)
        self.here: set[NodeId] = set()
        way.processes[name] = self

    def come(self, *nodes: NodeId) -> None:
        for one in nodes:
            self.here.add(one)
            self.presence.has_come(one)

    def go(self, *nodes: NodeId) -> None:
        for one in nodes:
            self.here.discard(one)
            self.presence.has_gone(one)

    @property
    def online(self) -> set[NodeId]:
        return set(self.registry._online)


@asynccontextmanager
async def running(*names: str) -> AsyncGenerator[tuple[Way, list[Process]]]:
    way = Way()
    processes = [Process(name, way) for name in names]
    async with trio.open_nursery() as nursery:
        for process in processes:
            nursery.start_soon(process.presence.run)
        yield way, processes
        nursery.cancel_scope.cancel()


def agree(processes: list[Process]) -> bool:
    everybody = {one for process in processes for one in process.here}
    return all(process.online == everybody for process in processes)


async def test_coming_and_going_is_told_as_it_happens_and_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running("a", "b", "c") as (way, processes):
        a, b, _ = processes
        await trio.sleep(SOON + 1)  # between two signs of life
        told = way.told
        a.come(*map(node, range(250)))
        await trio.sleep(0.1)
        assert agree(processes)
        assert way.told - told == 3  # a hundred at a time
        a.go(node(1))
        b.come(node(1), node(900))
        await trio.sleep(0.1)
        assert agree(processes)
        changed = len(b.changed)
        await trio.sleep(20 * SOON)
        assert len(b.changed) == changed  # signs of life change nothing


@pytest.mark.parametrize("lost", [0.1, 0.5])
async def test_what_is_lost_is_made_up_for(
    lost: float, autojump_clock: trio.testing.MockClock
) -> None:
    async with running("a", "b", "c") as (way, processes):
        way.lost = lost
        disagreed = 0
        for _ in range(300):
            process = way.random.choice(processes)
            one = node(way.random.randrange(600))
            (process.go if one in process.here else process.come)(one)
            await trio.sleep(way.random.random())
            disagreed += not agree(processes)
        assert disagreed > 10  # or nothing was lost
        way.lost = 0.0
        await trio.sleep(SOON)
        assert agree(processes)


async def test_what_could_not_be_told_is_told_once_the_way_is_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running("a", "b") as (way, processes):
        a, b = processes
        a.come(node(1), node(2))
        await trio.sleep(SOON)
        way.is_broken = True
        a.go(node(1))
        a.come(node(3))
        await trio.sleep(DEAD_SECONDS / 2)
        assert b.online == {node(1), node(2)}
        way.is_broken = False
        await trio.sleep(ALIVE_SECONDS + 1)
        assert agree(processes)


async def test_process_that_was_silent_for_long_comes_back_with_all_its_nodes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running("a", "b") as (way, processes):
        a, b = processes
        a.come(*map(node, range(300)))
        b.come(node(1000))
        await trio.sleep(SOON)
        way.deaf = {"b"}
        await trio.sleep(2 * DEAD_SECONDS)
        assert b.online == {node(1000)}
        way.deaf = set()
        await trio.sleep(SOON)
        assert agree(processes)


async def test_process_that_dies_takes_its_nodes_with_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    way = Way()
    survivor, victim = Process("a", way), Process("b", way)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(survivor.presence.run)
        async with trio.open_nursery() as others:
            others.start_soon(victim.presence.run)
            victim.come(node(1), node(2))
            survivor.come(node(2))  # it has gone there meanwhile
            await trio.sleep(SOON)
            assert survivor.online == {node(1), node(2)}
            others.cancel_scope.cancel()
        del way.processes["b"]
        await trio.sleep(DEAD_SECONDS + 2 * ALIVE_SECONDS)
        assert survivor.online == {node(2)}
        nursery.cancel_scope.cancel()


async def test_there_are_not_more_processes_than_can_be_and_known_ones_go_on_being_heard(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(presence_module, "_MOST_PROCESSES", 2)
    async with running("a") as (_, [a]):
        for process in ("x", "y", "z"):
            await a.presence.take(BusMessage(process, "online", (node(ord(process)).digest,)))
        assert a.online == {node(ord("x")), node(ord("y"))}  # nobody would drop the third's
        assert not await a.presence.take(BusMessage("z", "alive"))
        assert await a.presence.take(BusMessage("x", "offline", (node(ord("x")).digest,)))
        assert a.online == {node(ord("y"))}
