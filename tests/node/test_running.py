"""A server's end: asked for once it takes leave, asked for twice it does not."""

import os
import signal

import pytest
import trio
import trio.testing

from node.running import Stop, run_until_signal


@pytest.mark.parametrize("times", [1, 2])
async def test_second_signal_waits_for_no_leave(times: int) -> None:
    said: list[str] = []

    async def serve(stop: Stop) -> None:
        said.append("serves")
        await stop.wait()
        said.append("leaves")
        for _ in range(times - 1):
            os.kill(os.getpid(), signal.SIGTERM)
            await trio.sleep_forever()  # nobody goes
        said.append("has left")

    async def send() -> None:
        await trio.testing.wait_all_tasks_blocked()
        os.kill(os.getpid(), signal.SIGTERM)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await run_until_signal(serve)
    assert said == ["serves", "leaves", *(["has left"] if times == 1 else [])]


async def test_signal_ends_a_server_that_has_not_begun_to_wait() -> None:
    async def serve(_: Stop) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await trio.sleep_forever()  # a database that does not answer, say

    with trio.fail_after(20):
        await run_until_signal(serve)
