"""Places and computing, shared out by source."""

import trio
from trio.testing import wait_all_tasks_blocked

from node.dicom.fairness import OWN, CpuBudget, FairPlaces


class Holders:
    """Tasks that take places and keep them until they are told."""

    def __init__(self, places: FairPlaces, nursery: trio.Nursery) -> None:
        self._places = places
        self._nursery = nursery
        self.got: list[str] = []
        self.leave: list[trio.CancelScope] = []

    async def ask(self, source: str) -> trio.CancelScope:
        scope = trio.CancelScope()
        self._nursery.start_soon(self._hold, source, scope)
        await wait_all_tasks_blocked()
        return scope

    async def _hold(self, source: str, scope: trio.CancelScope) -> None:
        with scope:
            await self._places.acquire(source)
            self.got.append(source)
            try:
                await trio.sleep_forever()
            finally:
                self._places.release(source)


async def test_sources_have_turns_however_many_wait_of_one() -> None:
    async with trio.open_nursery() as nursery:
        holders = Holders(FairPlaces(1), nursery)
        first = await holders.ask("a")
        scopes = {name: await holders.ask(name[0]) for name in ("a1", "a2", "a3", "b1", "c1")}
        for leaving in (first, scopes["a1"], scopes["b1"], scopes["c1"]):
            leaving.cancel()
            await wait_all_tasks_blocked()
        assert holders.got == ["a", "a", "b", "c", "a"]
        nursery.cancel_scope.cancel()


async def test_kept_places_are_for_own_work_only() -> None:
    async with trio.open_nursery() as nursery:
        holders = Holders(FairPlaces(3, kept=1), nursery)
        for source in ("a", "b", "c", OWN, OWN):
            await holders.ask(source)
        assert holders.got == ["a", "b", OWN]
        nursery.cancel_scope.cancel()


async def test_no_source_has_more_than_its_share() -> None:
    async with trio.open_nursery() as nursery:
        holders = Holders(FairPlaces(4, each=2), nursery)
        for source in ("a", "a", "a", "b"):
            await holders.ask(source)
        assert holders.got == ["a", "a", "b"]
        nursery.cancel_scope.cancel()


async def test_place_of_a_cancelled_task_goes_on() -> None:
    """Of one that waits, and of one that has just been given a place."""
    places = FairPlaces(1)
    async with trio.open_nursery() as nursery:
        holders = Holders(places, nursery)
        first = await holders.ask("a")
        waiting, chosen = await holders.ask("b"), await holders.ask("c")
        waiting.cancel()
        await wait_all_tasks_blocked()
        first.cancel()
        chosen.cancel()
        await wait_all_tasks_blocked()
        assert places.waiting == 0
        await holders.ask("d")
        assert holders.got[-1] == "d"
        nursery.cancel_scope.cancel()


def test_budget_is_used_up_and_comes_back() -> None:
    now = 100.0
    budget = CpuBudget(10, 0.5, lambda: now)
    budget.charge("a", 12)
    budget.charge(OWN, 1000)
    assert (budget.wait_seconds("a"), budget.wait_seconds("b")) == (4, 0)
    assert budget.wait_seconds(OWN) == 0
    now = 104.0
    assert budget.wait_seconds("a") == 0
    budget.charge("a", 1)
    assert budget.wait_seconds("a") == 2


def test_budget_remembers_nobody_who_has_paid() -> None:
    now = 0.0
    budget = CpuBudget(10, 0.5, lambda: now)
    for n in range(1000):
        budget.charge(str(n), 0.001)
        now += 1
    assert len(budget._debts) == 1
