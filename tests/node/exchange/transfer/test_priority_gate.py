"""Priorities: nothing less urgent passes while something more urgent is on its way."""

from collections import Counter

import trio
import trio.testing

from node.domain.transfers import Priority
from node.exchange.transfer.priority_gate import PriorityGate


async def test_nothing_passes_while_something_more_urgent_is_on_its_way(
    autojump_clock: trio.testing.MockClock,
) -> None:
    gate, active, passed = PriorityGate(), Counter[Priority](), Counter[Priority]()

    async def carry(priority: Priority, after: float, chunks: int) -> None:
        await trio.sleep(after)
        with gate.active(priority):
            active[priority] += 1
            for _ in range(chunks):
                await gate.wait_turn(priority)
                assert not any(active[p] for p in Priority if p < priority)
                passed[priority] += 1
                await trio.sleep(0.1)
            active[priority] -= 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(carry, Priority.ROUTINE, 0, 9)
        nursery.start_soon(carry, Priority.ROUTINE, 0.05, 9)
        nursery.start_soon(carry, Priority.URGENT, 0.22, 4)
        nursery.start_soon(carry, Priority.STAT, 0.33, 3)
        nursery.start_soon(carry, Priority.STAT, 5, 3)
    assert passed == {Priority.ROUTINE: 18, Priority.URGENT: 4, Priority.STAT: 6}


async def test_transfer_that_breaks_off_lets_the_others_pass() -> None:
    gate = PriorityGate()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:

            async def break_off() -> None:
                with gate.active(Priority.STAT), trio.move_on_after(0):
                    await trio.sleep_forever()

            nursery.start_soon(break_off)
            await gate.wait_turn(Priority.ROUTINE)
