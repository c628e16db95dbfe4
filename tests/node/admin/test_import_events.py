"""What an import tells: nothing is lost, and little is kept for a caller that does not read."""

from typing import Any

import trio
from emix.admin.v1 import admin_pb2 as pb
from trio.testing import wait_all_tasks_blocked

from node.admin.studies import _MOST_FINDINGS, _EventWriter
from node.domain.verdicts import Verdict
from node.exchange.ingest.job import Finding, Progress, Summary


class Caller:
    """A call whose caller reads when it is let."""

    def __init__(self) -> None:
        self.reads = trio.Event()
        self.got: list[pb.ImportResponse] = []

    async def write(self, message: pb.ImportResponse) -> None:
        await self.reads.wait()
        self.got.append(message)

    def labels(self) -> list[str]:
        return [m.finding.label for m in self.got if m.HasField("finding")]


async def test_import_waits_for_a_caller_that_does_not_read() -> None:
    caller: Any = Caller()
    writer, told = _EventWriter(caller), 0

    async def importing() -> None:
        nonlocal told
        for n in range(3 * _MOST_FINDINGS):
            await writer.wait_room()
            writer.report(Finding(str(n), Verdict.REFUSE, ("no DICOM",)))
            writer.report(Progress(n, n, n, n))
            told += 1
        await writer.finish(Summary(study_instance_uids=[f"1.{n}" for n in range(500)]))
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        nursery.start_soon(importing)
        await wait_all_tasks_blocked()
        assert _MOST_FINDINGS <= told <= _MOST_FINDINGS + 1
        caller.reads.set()
    assert caller.labels() == [str(n) for n in range(3 * _MOST_FINDINGS)]
    assert caller.got[-1].HasField("summary")
    uids = [uid for m in caller.got for uid in m.studies.study_instance_uids]
    assert uids == [f"1.{n}" for n in range(500)]
    assert max(m.ByteSize() for m in caller.got) < 64 * 1024
    last = [m.progress.files_done for m in caller.got if m.HasField("progress")][-1]
    assert last == 3 * _MOST_FINDINGS - 1


async def test_numbers_that_no_message_holds_end_nothing() -> None:
    """They are sums of what folders, archives and clients say."""
    caller: Any = Caller()
    caller.reads.set()
    writer = _EventWriter(caller)
    writer.report(Progress(1, 2, -1, 3 * (2**64 - 1)))
    await writer.finish(Summary())
    told = caller.got[0].progress
    assert (told.files_done, told.files_total) == (1, 2)
    assert (told.bytes_done, told.bytes_total) == (0, 2**64 - 1)
