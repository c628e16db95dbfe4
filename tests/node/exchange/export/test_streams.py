"""Instances come whole and in order; few chunks are open; whoever has enough leaves."""

import threading

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from node.domain.exports import Place
from node.domain.manifest import Extent
from node.errors import Conflict, StoreError
from node.exchange.export.schedule import KEPT_CHUNKS, schedule
from node.exchange.export.streams import (
    AHEAD_CHUNKS,
    Overlay,
    Unchanged,
    ZeroedPreamble,
    instance_stream,
)

CHUNK = 100


def content(package: int, position: int) -> bytes:
    return bytes((package * 50 + position * 7 + n) % 251 for n in range(CHUNK))


extents = st.builds(Extent, st.integers(0, 6), st.integers(0, 60), st.integers(1, 40))
places = st.lists(
    st.builds(Place, st.integers(0, 1), st.lists(extents, min_size=1, max_size=3)), max_size=20
)


async def read(wanted: list[Place], overlay: type[Overlay] = Unchanged) -> list[bytes]:
    found = [b""] * len(wanted)
    last = 0
    async with instance_stream(schedule(wanted), content, lambda _: overlay()) as pieces:
        async for piece in pieces:
            assert piece.instance >= last
            assert piece.offset == len(found[piece.instance])
            found[piece.instance] += piece.data
            last = piece.instance
    return found


@given(places)
def test_instances_come_whole_and_in_order(wanted: list[Place]) -> None:
    whole = [
        b"".join(
            content(p.package, e.chunk_index)[e.offset : e.offset + e.length] for e in p.extents
        )
        for p in wanted
    ]
    assert trio.run(read, wanted) == whole
    zeroed = [bytes(min(128, len(one))) + one[128:] for one in whole]
    assert trio.run(read, wanted, ZeroedPreamble) == zeroed


class Growing:
    """Gives each instance a beginning and an end."""

    def __init__(self) -> None:
        self._is_begun = False

    def feed(self, piece: bytes) -> bytes:
        begun, self._is_begun = self._is_begun, True
        return piece if begun else b"<" + piece

    def end(self) -> bytes:
        return b">"


async def test_overlay_may_change_how_large_an_instance_is() -> None:
    wanted = [Place(0, [Extent(0, 0, 5), Extent(1, 0, 5)]), Place(0, [Extent(1, 5, 5)])]
    assert await read(wanted, Growing) == [
        b"<" + content(0, 0)[:5] + content(0, 1)[:5] + b">",
        b"<" + content(0, 1)[5:10] + b">",
    ]


async def test_few_chunks_are_opened_ahead_of_a_slow_reader() -> None:
    opened: list[int] = []
    lock = threading.Lock()

    def open_chunk(package: int, position: int) -> bytes:
        with lock:
            opened.append(position)
        return content(package, position)

    wanted = [Place(0, [Extent(n, 0, CHUNK)]) for n in range(50)]
    async with instance_stream(schedule(wanted), open_chunk) as pieces:
        async for piece in pieces:
            await trio.testing.wait_all_tasks_blocked(0.001)
            assert len(opened) <= piece.instance + AHEAD_CHUNKS
    assert sorted(opened) == list(range(50))
    assert KEPT_CHUNKS + AHEAD_CHUNKS <= 8  # 32 MiB


async def test_chunk_that_is_lost_ends_it_with_that_error() -> None:
    def open_chunk(package: int, position: int) -> bytes:
        if position == 3:
            raise StoreError("it is lost")
        return content(package, position)

    wanted = [Place(0, [Extent(n, 0, CHUNK)]) for n in range(50)]

    async def read_all() -> None:
        async with instance_stream(schedule(wanted), open_chunk) as pieces:
            async for _ in pieces:
                pass

    with pytest.raises(StoreError, match="it is lost"):
        await read_all()


async def test_reader_that_has_enough_leaves_early() -> None:
    wanted = [Place(0, [Extent(n, 0, CHUNK)]) for n in range(50)]
    async with instance_stream(schedule(wanted), content) as pieces:
        assert (await anext(pieces)).data == content(0, 0)


async def test_scattered_instances_are_refused_before_anything_is_opened() -> None:
    wanted = [Place(0, [Extent(n % 9, n // 9, 1)]) for n in range(500)]
    with pytest.raises(Conflict, match="spread over its chunks"):
        async with instance_stream(schedule(wanted), lambda *_: pytest.fail("opened")):
            pass
