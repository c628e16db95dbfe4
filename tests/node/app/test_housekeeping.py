"""What is sealed is opened in the background, and takes a fifth of the time at most."""

from typing import Any

import trio
from trio.testing import MockClock

from node.app.housekeeping import ChunkVerifier
from node.errors import StoreAway
from node.store.verification import Opened


class Slow:
    """Takes two seconds for each page; the third is all damaged, at the fourth nobody answers."""

    def __init__(self) -> None:
        self.begun: list[float] = []

    async def open_next(self) -> Opened:
        self.begun.append(trio.current_time())
        await trio.sleep(2)
        match len(self.begun):
            case 1 | 2:
                return Opened(16)
            case 3:
                return Opened(16, damaged=16)
            case 4:
                raise StoreAway("nobody answers")
        return Opened()


async def test_chunks_are_opened_little_by_little(autojump_clock: MockClock) -> None:
    slow: Any = Slow()
    with trio.move_on_after(300):
        await ChunkVerifier(slow).run()
    pauses = [after - before - 2 for before, after in zip(slow.begun, slow.begun[1:], strict=False)]
    assert [round(pause) for pause in pauses] == [8, 8, 60, 60, 60, 60]
