"""A peer, or a CD, that has little expand to much."""

from pathlib import Path

import pytest

from node.dicom.archive_reader import Unreadable
from node.dicom.media import find_files
from node.documents.messages import Message, Problem
from tests.integration.attacks.bombs import package_of_zeroes, zip_of_many, zip_of_one_kernel
from tests.support.hostile import HostilePeer
from tests.support.loop import run
from tests.support.nodes import Node

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


def problem_of(path: Path) -> str:
    """Return why an archive is refused as a whole, before anything of it was opened."""
    (file,) = find_files(path)
    with file.members() as members, pytest.raises(Unreadable) as refused:
        next(members)
    return str(refused.value)


@pytest.mark.parametrize("told", [0xFFFF, 3])
def test_zip_of_too_many_entries_is_refused_before_they_are_opened(
    tmp_path: Path, told: int
) -> None:
    """350,000 of them in 16 MiB, whatever its end record says."""
    path = tmp_path / "many.zip"
    zip_of_many(path, 350_000, told=told)
    assert problem_of(path) == "it has too many entries; unpack it first"


def test_zip_whose_entries_share_their_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "shared.zip"
    zip_of_one_kernel(path, 1000, 20_000)
    assert problem_of(path) == "its entries overlap; unpack it first"
