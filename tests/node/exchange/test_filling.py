"""What waits in open packages is bounded, and not counted again for each instance."""

from typing import Any

import pytest
import trio

from node.domain.actors import NODE
from node.domain.verdicts import Examined, Verdict
from node.exchange.ingest.job import ImportJob
from node.exchange.ingest.reading import FileInMemory, ReadFile

MIB = 2**20


class Package:
    """An open package that keeps what it is given until it is flushed."""

    row_id = 1
    asked = 0

    def __init__(self) -> None:
        self.filling = self.flushed = 0

    @property
    def filling_bytes(self) -> int:
        Package.asked += 1
        return self.filling

    async def add(self, examined: Examined, digest: bytes, content: bytes) -> None:
        self.filling += len(content)

    async def flush(self) -> None:
        self.filling, self.flushed = 0, self.flushed + 1


class Store:
    """Gives out packages."""

    def __init__(self) -> None:
        self.packages: list[Package] = []

    async def open_package(self, *_: object, **__: object) -> Package:
        self.packages.append(Package())
        return self.packages[-1]


@pytest.mark.parametrize(("studies", "size"), [(500, 100), (20, 4 * MIB), (500, MIB)])
async def test_what_waits_is_bounded_and_seldom_counted(studies: int, size: int) -> None:
    store: Any = Store()
    job = ImportJob(store, Any, lambda _: None, NODE)  # type: ignore[arg-type]
    content, instances, most, Package.asked = bytes(size), 2 * studies, 0, 0
    async with trio.open_nursery() as sealing:
        for n in range(instances):
            found = Examined(Verdict.CARRY, study_instance_uid=f"1.{n % studies}")
            item = ReadFile(FileInMemory("x", content), content, str(n).encode())
            await job._place(item, found, sealing)
            most = max(most, sum(package.filling for package in store.packages))
    assert most <= 80 * MIB
    assert Package.asked <= 4 * studies * (1 + instances * size // (8 * MIB))
    assert (sum(package.flushed for package in store.packages) > 0) == (size >= MIB)
