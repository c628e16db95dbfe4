"""SIGKILL at many moments of imports and transfers: complete afterwards, nothing lost.

Each round makes a new study, waits until the node to be killed has reached the state that it
is this round's turn for, and kills it some milliseconds later. A kill counts only if it landed
before what was going on had completed; a round whose kill came too late is done again. Of a hundred
kills seventy are here, with chunks in files; the others are in `test_kills_in_buckets.py`.
"""

import hashlib
import os
import random
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest
import trio
from emix.admin.v1 import admin_pb2 as pb

from node.errors import NodeError
from tests.support.admin import Client, admin, import_folder, wait_delivered
from tests.support.dicom_files import encode, make_dataset, study_uid
from tests.support.loop import run
from tests.support.nodes import Node, two_nodes

KILLS = 70
MOST_TOO_LATE = 150  # the receiver writes a receipt in a moment
SECONDS_A_KILL = 15
SENT_AGAIN_BYTES = 16 * 2**20
INSTANCES = 40
_IMPORT_STATES = ("import begun", "import half", "import closing")
_SENDER_STATES = ("sender pending", "sender carrying", "sender checked")
_RECEIVER_STATES = ("receiver begun", "receiver carrying", "receiver checking", "receiver receipt")
KINDS = ("folder", "zip", "tar", "gztar")
"""What is imported; as `shutil` calls archives."""

STATES = _IMPORT_STATES + _SENDER_STATES + _RECEIVER_STATES


class TooLate(Exception):
    """The kill landed after completion; the round does not count."""


def write_noisy_study(folder: Path, study: int) -> dict[str, str]:
    """Write a study that hardly compresses; return digest by file name."""
    noise = random.Random(study)
    folder.mkdir(parents=True)
    digests = {}
    for n in range(1, INSTANCES + 1):
        ds = make_dataset(study, n, size=512)
        ds.PixelData = noise.randbytes(512 * 512 * 2)
        data = encode(ds)
        (folder / f"{n:03d}").write_bytes(data)
        digests[f"{n:03d}"] = hashlib.sha256(data).hexdigest()
    return digests


def packed(folder: Path, kind: str) -> Path:
    """Return a folder, or put all of it into an archive instead."""
    if kind == "folder":
        return folder
    archive = shutil.make_archive(str(folder), kind, folder)
    shutil.rmtree(folder)
    return Path(archive)


def _remove(source: Path) -> None:
    if source.is_dir():
        shutil.rmtree(source)
    else:
        source.unlink()


class Rounds:
    """Two nodes and what has been done to them."""

    def __init__(
        self, a: Node, b: Node, folder: Path, wanted: int = KILLS, *, of_each: int = 3
    ) -> None:
        self.a, self.b, self.folder, self.wanted = a, b, folder, wanted
        self.of_each = of_each
        self.kills: Counter[str] = Counter()
        self.too_late: Counter[str] = Counter()
        self.sent_again: list[int] = []
        self._study = 0
        self._random = random.Random(7)

    async def run(self) -> None:
        turn = 0
        while self.kills.total() < self.wanted or self._rarest() < self.of_each:
            state = STATES[turn % len(STATES)]
            turn += 1
            if self.kills.total() >= self.wanted and self.kills[state] >= self.of_each:
                continue
            try:
                await self._round(state)
                self.kills[state] += 1
            except TooLate:
                self.too_late[state] += 1
                assert self.too_late[state] < MOST_TOO_LATE, f"{state} is never caught"

    def _rarest(self) -> int:
        return min(self.kills[state] for state in STATES)

    async def _round(self, state: str) -> None:
        self._study += 1
        folder = self.folder / f"in{self._study}"
        digests = write_noisy_study(folder, self._study)
        is_import = state in _IMPORT_STATES
        source = packed(folder, KINDS[self._study % len(KINDS)] if is_import else "folder")
        try:
            if state in _IMPORT_STATES:
                await self._kill_in_import(state, source)
            else:
                async with admin(self.a) as client:
                    await import_folder(client, source)
                await self._kill_in_transfer(state)
        finally:
            for node in (self.a, self.b):
                if node.process is None:
                    node.start()
        await self._complete(source, digests, is_import=state in _IMPORT_STATES)

    def _kill(self, node: Node) -> None:
        assert node.process is not None
        os.kill(node.process.pid, signal.SIGKILL)
        node.process.wait()
        node.kill()

    async def _soon(self) -> None:
        await trio.sleep(self._random.uniform(0, 0.03))

    async def _kill_in_import(self, state: str, source: Path) -> None:
        async with admin(self.a) as client:
            try:
                async with client.stream("StudyService.Import") as stream:
                    paths = pb.ImportPaths(paths=[str(source)])
                    await stream.write(pb.ImportRequest(paths=paths))
                    while (event := await stream.read()) is not None:
                        progress, kind = event.progress, event.WhichOneof("event")
                        if kind == "summary":
                            break
                        if _import_state(progress) == state or state == _IMPORT_STATES[0]:
                            await self._soon()
                            self._kill(self.a)
            except NodeError:
                return
        if self.a.process is not None:
            raise TooLate

    async def _kill_in_transfer(self, state: str) -> None:
        victim = self.a if state in _SENDER_STATES else self.b
        watched = {
            "sender pending": (self.a, "pending"),
            "sender carrying": (self.a, "carrying"),
            "sender checked": (self.b, "checking"),
            "receiver begun": (self.a, "pending"),
            "receiver carrying": (self.b, "carrying"),
            "receiver checking": (self.b, "checking"),
            "receiver receipt": (self.b, "delivered"),
        }[state]
        async with admin(self.a) as sender, admin(watched[0]) as observer:
            request = pb.WatchTransfersRequest()
            async with observer.stream("TransferService.WatchTransfers", request) as stream:
                order = pb.SendRequest(study=study_uid(self._study), facility=self.b.display_name)
                answer = await sender.call("TransferService.Send", order)
                wanted = answer.transfers[0].transfer_id
                while (event := await stream.read()) is not None:
                    t = event.transfer
                    if t.transfer_id == wanted and t.state == watched[1]:
                        break
                    if t.transfer_id == wanted and t.state == "delivered":
                        raise TooLate  # a listener gets the latest state, and may miss one
                if watched[1] in ("pending", "carrying"):
                    await self._soon()
                self._kill(victim)
        if victim is self.b:
            async with admin(self.a) as sender:
                answer = await sender.call(
                    "TransferService.ListTransfers", pb.ListTransfersRequest()
                )
                now = next(t for t in answer.transfers if t.transfer_id == wanted)
                if now.state == "delivered":
                    raise TooLate

    async def _complete(self, source: Path, digests: dict[str, str], *, is_import: bool) -> None:
        """Everything must complete by itself, or by repeating the command that was killed."""
        uid = study_uid(self._study)
        async with admin(self.a) as sender:
            if is_import:
                await import_folder(sender, source)
            request = pb.SendRequest(study=uid, facility=self.b.display_name)
            sent = await sender.call("TransferService.Send", request)
            done = []
            with trio.fail_after(90):
                done = [await wait_delivered(sender, t.transfer_id) for t in sent.transfers]
        assert [t.state for t in done] == ["delivered"] * len(done), done
        async with admin(self.b) as receiver:
            here = await _transfers(receiver)
        carried = max(
            sum(t.bytes_carried for t in done),
            sum(here[t.transfer_id].bytes_carried for t in done),
        )
        again = carried - sum(t.bytes_total for t in done)
        self.sent_again.append(again)
        assert again <= SENT_AGAIN_BYTES
        out = self.folder / f"out{self._study}"
        async with admin(self.b) as receiver:
            await _export(receiver, uid, out)
        found = {hashlib.sha256(p.read_bytes()).hexdigest() for p in out.rglob("IM*")}
        assert found == set(digests.values())
        await trio.to_thread.run_sync(shutil.rmtree, out)
        await trio.to_thread.run_sync(_remove, source)
        for node in (self.a, self.b):
            async with admin(node) as client:
                await client.call("StudyService.DeleteStudy", pb.DeleteStudyRequest(study=uid))

    def check(self) -> None:
        """Check that both stores and both audit logs are whole."""
        for node in (self.a, self.b):
            node.run("audit", "verify")
            node.run("store", "check", "--read-data")

    def __str__(self) -> str:
        return (
            f"kills by state: {dict(self.kills)}; came too late: {dict(self.too_late)};"
            f" sent again at most: {max(self.sent_again) / 2**20:.1f} MiB"
        )


def _import_state(progress: pb.ImportProgress) -> str:
    if not progress.files_total:
        return _IMPORT_STATES[0]
    if progress.files_done == INSTANCES:
        return _IMPORT_STATES[2]
    return _IMPORT_STATES[1] if progress.files_done else _IMPORT_STATES[0]


async def _transfers(client: Client) -> dict[str, pb.Transfer]:
    answer = await client.call("TransferService.ListTransfers", pb.ListTransfersRequest())
    return {t.transfer_id: t for t in answer.transfers}


async def _export(client: Client, uid: str, out: Path) -> None:
    request = pb.ExportStudyRequest(study=uid, directory=str(out))
    async with client.stream("StudyService.ExportStudy", request) as stream:
        while await stream.read() is not None:
            pass


def hold(rounds: Rounds, capsys: pytest.CaptureFixture[str], seconds: float) -> None:
    """Do the rounds, and hold that each state was met and nothing is lost."""
    run(rounds.run, seconds)
    rounds.check()
    with capsys.disabled():
        print(f"\n{rounds}")
    assert rounds.kills.total() >= rounds.wanted
    assert min(rounds.kills[state] for state in STATES) >= rounds.of_each


@pytest.mark.timeout(KILLS * SECONDS_A_KILL + 100)
@pytest.mark.long
@pytest.mark.slow
@pytest.mark.integration
def test_seventy_kills_lose_nothing_and_send_little_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with two_nodes(tmp_path) as (a, b):
        hold(Rounds(a, b, tmp_path), capsys, KILLS * SECONDS_A_KILL)
