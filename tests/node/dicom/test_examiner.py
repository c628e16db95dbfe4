"""Parser processes: what they are confined to, and what a failing one costs."""

import os
import signal
from pathlib import Path

import pytest

from node.dicom import examiner as module
from node.dicom.examiner import open_examiner
from node.domain.verdicts import Verdict
from tests.dicom_files import make_instance


async def test_files_in_a_slab_are_examined_each() -> None:
    one, two = make_instance(1, 1), make_instance(2, 1)
    async with open_examiner() as examiner, examiner.arena.slab() as slab:
        slab.write(0, one + b"junk" + two)
        places = [(0, len(one)), (len(one), 4), (len(one) + 4, len(two))]
        found = await examiner.examine_files(slab, places)
    assert [f.verdict for f in found] == [Verdict.CARRY, Verdict.REFUSE, Verdict.CARRY]
    assert found[0].study_instance_uid != found[2].study_instance_uid


async def test_killed_parser_is_replaced() -> None:
    one = make_instance(1, 1)
    async with open_examiner(parsers=1) as examiner, examiner.arena.slab() as slab:
        slab.write(0, one)
        await examiner.examine_files(slab, [(0, len(one))])
        os.kill(examiner._idle[0]._process.pid, signal.SIGKILL)
        await examiner._idle[0]._process.wait()
        first = await examiner.examine_files(slab, [(0, len(one))])
        second = await examiner.examine_files(slab, [(0, len(one))])
    assert first[0].reasons == ("the parser failed on it",)
    assert second[0].verdict is Verdict.CARRY


async def test_hanging_parser_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.5)
    one = make_instance(1, 1)
    async with open_examiner(parsers=1) as examiner, examiner.arena.slab() as slab:
        slab.write(0, one)
        await examiner.examine_files(slab, [(0, len(one))])
        pid = examiner._idle[0]._process.pid
        os.kill(pid, signal.SIGSTOP)
        found = await examiner.examine_files(slab, [(0, len(one))])
        assert found[0].reasons == ("the parser failed on it",)
        assert not Path(f"/proc/{pid}").exists()


async def test_parser_has_no_network_and_no_files() -> None:
    async with open_examiner(parsers=1) as examiner, examiner.arena.slab() as slab:
        await examiner.examine_files(slab, [(0, 10)])
        pid = examiner._idle[0]._process.pid
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert "Max open files            3" in limits
        assert "Max file size             0" in limits
        if os.geteuid() == 0:
            assert examiner.unconfined == []
            status = Path(f"/proc/{pid}/status").read_text()
            assert "Uid:\t65534\t65534" in status
            assert Path(f"/proc/{pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
