"""Priorities: nothing less urgent passes while something more urgent is on its way."""

import trio
import trio.testing

from node.domain.transfers import Priority
from node.exchange.gate import PriorityGate


async def test_more_urgent_goes_first_and_the_others_go_on_after_it() -> None:
    gate, order = PriorityGate(), list[str]()
    stat_done = trio.Event()

    async def carry(name: str, priority: Priority, chunks: int) -> None:
        with gate.active(priority):
            for _ in range(chunks):
                await gate.wait_turn(priority)
                order.append(name)
                await trio.testing.wait_all_tasks_blocked()
            if priority is Priority.STAT:
                stat_done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(carry, "routine", Priority.ROUTINE, 3)
        await trio.testing.wait_all_tasks_blocked(0.001)
        nursery.start_soon(carry, "stat", Priority.STAT, 3)
        nursery.start_soon(carry, "urgent", Priority.URGENT, 2)
    first = order.index("stat")
    assert order[first : first + 3] == ["stat"] * 3
    assert order[first + 3 : first + 5] == ["urgent"] * 2
    assert sorted(order) == ["routine"] * 3 + ["stat"] * 3 + ["urgent"] * 2


async def test_transfer_that_breaks_off_lets_the_others_pass() -> None:
    gate = PriorityGate()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:

            async def break_off() -> None:
                with gate.active(Priority.STAT), trio.move_on_after(0):
                    await trio.sleep_forever()

            nursery.start_soon(break_off)
            await gate.wait_turn(Priority.ROUTINE)
