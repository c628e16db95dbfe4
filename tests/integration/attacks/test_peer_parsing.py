"""A peer, or a CD, whose files take as much computing as they can: what that costs others.

What parsers compute is measured as the kernel counts it, and compared with what they compute
for plain files of the same size on this machine; waiting is measured by who is served before.
"""

import math
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
import trio
import trio.testing

from node.dicom import examiner as module
from node.dicom.examiner import Examiner, open_examiner
from node.domain.verdicts import Examined, Verdict
from tests.integration.attacks.slow_files import deflated_elements, many_elements
from tests.support.dicom_files import make_instance

pytestmark = pytest.mark.integration
_CPUCLOCK_SCHED = 2


def slab_of(examiner: Examiner, source: str) -> Any:
    """Return a slab for a source, where sources are told apart."""
    try:
        return examiner.arena.slab(source)
    except TypeError:
        return examiner.arena.slab()  # type: ignore[call-arg, unused-ignore]


async def examine(examiner: Examiner, files: list[bytes], source: str = "") -> list[Examined]:
    async with slab_of(examiner, source) as slab:
        extents, start = [], 0
        for file in files:
            slab.write(start, file)
            extents.append((start, len(file)))
            start += len(file)
        return await examiner.examine_files(slab, extents)


async def cpu_seconds(examiner: Examiner, files: list[bytes]) -> tuple[float, list[Examined]]:
    """Return what the only parser computes for files, the least of five times, and its verdicts."""
    parser = examiner._slots[0]._parser
    assert parser is not None
    clock = (~parser._process.pid << 3) | _CPUCLOCK_SCHED
    least, found = math.inf, []
    for _ in range(5):
        before = time.clock_gettime(clock)
        found = await examine(examiner, files)
        least = min(least, time.clock_gettime(clock) - before)
    return least, found


async def test_deflated_file_costs_no_more_than_in_proportion_to_its_size() -> None:
    """149 KiB of it took 5.4 s, as much as 18 MiB of plain elements, and were carried."""
    slow, plain = deflated_elements(149 * 1024), many_elements(2**20)
    async with open_examiner(parsers=1) as examiner:
        slow_seconds, (verdict,) = await cpu_seconds(examiner, [slow])
        plain_seconds, _ = await cpu_seconds(examiner, [plain])
    ratio = (slow_seconds / len(slow)) / (plain_seconds / len(plain))
    assert ratio < 40  # it was 130
    assert verdict.verdict is Verdict.REFUSE
    assert verdict.reasons == ("more elements than a file of its size may have",)


async def test_many_small_deflated_files_cost_no_more_either() -> None:
    """What one may have for being a file at all does not add up."""
    files = [deflated_elements(4096, n) for n in range(60)]
    plain = many_elements(2**20)
    async with open_examiner(parsers=1) as examiner:
        slow_seconds, _ = await cpu_seconds(examiner, files)
        plain_seconds, _ = await cpu_seconds(examiner, [plain])
    ratio = (slow_seconds / sum(map(len, files))) / (plain_seconds / len(plain))
    assert ratio < 40


async def test_own_files_do_not_wait_behind_those_of_peers() -> None:
    """Two peers with all the slow files that they can have in hand; then two files of our own."""
    slow, own = many_elements(3 * 2**20), [make_instance(1, 1), make_instance(1, 2)]
    served = 0

    async def flood(source: str) -> None:
        nonlocal served
        await examine(examiner, [slow], source)
        served += 1

    async with open_examiner() as examiner, trio.open_nursery() as nursery:
        for source in ("one", "two") * 10:
            nursery.start_soon(flood, source)
        await trio.testing.wait_all_tasks_blocked(0.05)
        before = served
        found = await examine(examiner, own)
        assert [f.verdict for f in found] == [Verdict.CARRY] * 2
        # They are examined beside; what is counted is that they do not go first.
        assert served - before <= 2
        nursery.cancel_scope.cancel()


async def test_peers_files_do_not_wait_behind_those_of_another_peer() -> None:
    """At most one of the other's is on each parser, and those have their turns."""
    slow, honest = many_elements(3 * 2**20), [make_instance(1, 1)]
    served = 0

    async def flood() -> None:
        nonlocal served
        await examine(examiner, [slow], "flooding")
        served += 1

    async with open_examiner() as examiner, trio.open_nursery() as nursery:
        for _ in range(16):
            nursery.start_soon(flood)
        await trio.testing.wait_all_tasks_blocked(0.05)
        before = served
        await examine(examiner, honest, "honest")
        assert served - before <= 4
        nursery.cancel_scope.cancel()


async def test_files_of_one_batch_leave_turns_to_others() -> None:
    """A batch of many slow files is one request: it takes many turns."""
    batch = [many_elements(300 * 1024, n) for n in range(13)]
    order: list[str] = []

    async def run(name: str, files: list[bytes]) -> None:
        await examine(examiner, files, name)
        order.append(name)

    async with open_examiner(parsers=1) as examiner, trio.open_nursery() as nursery:
        nursery.start_soon(run, "flooding", batch)
        await trio.testing.wait_all_tasks_blocked(0.05)
        nursery.start_soon(run, "honest", [make_instance(1, 1)])
    assert order == ["honest", "flooding"]


async def test_peer_that_has_used_up_its_computing_waits_and_others_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BURST_SECONDS", 0.05)
    monkeypatch.setattr(module, "SUSTAINED_CORES", 1e-5)
    slow, honest = many_elements(3 * 2**20), [make_instance(1, 1)]
    done: list[str] = []

    async def run(name: str, files: list[bytes]) -> None:
        await examine(examiner, files, name)
        done.append(name)

    async with open_examiner() as examiner, trio.open_nursery() as nursery:
        await run("flooding", [slow])
        nursery.start_soon(run, "flooding", [slow])
        for name in ("honest", "", "honest"):
            await run(name, honest)
        assert done == ["flooding", "honest", "", "honest"]
        nursery.cancel_scope.cancel()


def test_kernel_ends_a_parser_that_has_gone_astray() -> None:
    """Also where nobody looks: a node that was killed cannot."""
    program = (
        "from node.dicom import answering; answering.BASE_SECONDS = 0.05\n"
        "answering.limit_time(0)\n"
        "while True: pass"
    )
    done = subprocess.run([sys.executable, "-I", "-c", program], check=False, timeout=60)
    assert done.returncode == -signal.SIGPROF


async def test_file_that_took_too_long_is_refused_for_that() -> None:
    one = make_instance(1, 1)
    async with open_examiner(parsers=1) as examiner, examiner.large(len(one)) as examination:
        parser = examiner._slots[0]._parser
        assert parser is not None
        os.kill(parser._process.pid, signal.SIGPROF)
        found = await examination.feed(one, is_last=True)
    assert found.verdict is Verdict.REFUSE
    assert found.reasons == ("parsing takes too much computing for its size",)
    assert not found.is_failure  # or a peer's package would be tried again for ever


async def test_parser_cannot_say_that_it_examined_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be asked again for ever."""

    async def nothing(*_: object, **__: object) -> list[object]:
        return []

    monkeypatch.setattr(module._Slot, "ask", nothing)
    async with open_examiner(parsers=1) as examiner:
        with trio.fail_after(30):
            (found,) = await examine(examiner, [make_instance(1, 1)])
    assert found.verdict is Verdict.REFUSE
    assert found.is_failure
