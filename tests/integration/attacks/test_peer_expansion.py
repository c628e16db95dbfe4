"""A peer, or a CD, that has little expand to much."""

import zipfile
from pathlib import Path
from typing import Any

import pytest

from bench.nodes import Node
from node.dicom.media import find_files
from node.documents.messages import Message, Problem
from tests.integration.attacks.bombs import package_of_zeroes, zip_of_many, zip_of_one_kernel
from tests.integration.hostile import HostilePeer
from tests.integration.loop import run

pytestmark = pytest.mark.integration


def test_package_of_terabytes_is_refused_at_its_manifest(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    """977 GiB out of 25 MiB took a place, and as much computing as there is time."""
    _, b = nodes
    peer = HostilePeer(tmp_path)
    identity = peer.pair_with(b)
    bomb = package_of_zeroes(peer, identity, 1, gib=40)

    async def offer() -> Message | None:
        async with peer.channel(b, identity) as channel, peer.carry(channel, identity) as link:
            return await bomb.send(link)

    problem = run(offer)
    assert isinstance(problem, Problem)
    assert "40 GiB out of 1 MiB" in problem.message
    assert problem.is_final
    (transfer,) = b.json("transfers")["transfers"]
    assert transfer["state"] == "failed"


def problems_of(path: Path) -> list[str]:
    return [file.problem for file in find_files(path)]


@pytest.mark.parametrize("told", [0xFFFF, 3])
def test_zip_of_too_many_entries_is_refused_before_they_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: int
) -> None:
    """350,000 of them in 16 MiB, whatever its end record says."""
    path = tmp_path / "many.zip"
    zip_of_many(path, 350_000, told=told)
    made = 0

    class Counted(zipfile.ZipInfo):
        def __init__(self, *arguments: Any) -> None:
            nonlocal made
            made += 1
            super().__init__(*arguments)

    monkeypatch.setattr(zipfile, "ZipInfo", Counted)
    problems = problems_of(path)
    assert problems[:2] == ["a ZIP of too many entries; unpack it first"]
    assert made <= 100_001


def test_zip_whose_entries_share_their_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "shared.zip"
    zip_of_one_kernel(path, 1000, 20_000)
    problems = problems_of(path)
    assert problems == ["a ZIP whose entries share their bytes; unpack it first"]


def test_zip_is_bounded_as_a_whole(tmp_path: Path) -> None:
    """Each of its entries may expand to 800 KiB, however small; all of them may not."""
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for n in range(400):
            archive.writestr(str(n), bytes(800_000))
    problems = problems_of(path)
    assert problems == ["a ZIP that expands beyond all measure; unpack it first"]
