"""Reading what is imported: all of a file, whatever its folder said of its size."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from io import BytesIO
from typing import BinaryIO

import pytest
import trio

from node.crypto.digests import digest
from node.exchange.ingest.reading import (
    WINDOW_BYTES,
    ReadMember,
    batches,
    open_members,
    read_files,
    rest_of,
)
from node.exchange.ports import ArchivedFile
from tests.support.incoming import PlainFile


class Grown(PlainFile):
    """A file whose size is not what was said of it."""

    label = "file"

    def __init__(self, content: bytes, said: int) -> None:
        self._content = content
        self.size_bytes = said

    def open(self) -> BinaryIO:
        return BytesIO(self._content)


@pytest.mark.parametrize("size", [0, 1, 1000, WINDOW_BYTES - 1, WINDOW_BYTES])
@pytest.mark.parametrize("more", [0, 1, WINDOW_BYTES * 9])
def test_a_file_that_is_no_larger_than_was_said_is_read_whole(size: int, more: int) -> None:
    content = bytes(range(251)) * (size // 251 + 1)
    [read] = read_files([Grown(content[:size], size + more)])
    assert read.content == content[:size]
    assert read.digest == digest(content[:size])
    assert not read.is_larger


@pytest.mark.parametrize("size", [1, 1000, WINDOW_BYTES, WINDOW_BYTES + 1, WINDOW_BYTES * 2])
def test_what_is_held_of_a_batch_is_what_was_said_of_it(size: int) -> None:
    """Files that grow after they were listed would else fill the memory, 4 MiB each."""
    read = read_files([Grown(bytes(size), said) for said in (0, 0, size - 1)])
    assert all(item.is_larger and not item.content for item in read)


def test_a_file_over_a_window_is_larger_whatever_was_said() -> None:
    [read] = read_files([Grown(bytes(WINDOW_BYTES + 1), WINDOW_BYTES * 9)])
    assert read.is_larger
    assert read.content == b""


def test_empty_files_make_batches_of_bounded_number() -> None:
    made = list(batches(iter([Grown(b"", 0)] * 2500)))
    assert [len(batch) for batch in made] == [1000, 1000, 500]


class Silent(PlainFile):
    """An archive whose process says nothing until it is ended; or a file in it that does."""

    label = "archive"
    size_bytes = 0
    problem = ""

    def __init__(self, *, is_file_silent: bool) -> None:
        self._is_file_silent = is_file_silent
        self.is_asked = threading.Event()
        self.is_ended = threading.Event()
        self.said: list[str] = []

    def members(self) -> AbstractContextManager[Iterator[ArchivedFile]]:
        @contextmanager
        def opened() -> Iterator[Iterator[ArchivedFile]]:
            try:
                yield self._files()
            finally:
                self.said.append("ended")
                self.is_ended.set()

        return opened()

    def _files(self) -> Iterator[ArchivedFile]:
        if not self._is_file_silent:
            self._wait()
        yield self

    def read(self) -> bytes:
        self._wait()
        return b""

    def open(self) -> BinaryIO:
        raise NotImplementedError

    def _wait(self) -> None:
        self.is_asked.set()
        self.is_ended.wait(5)
        self.said.append("answered")


@pytest.mark.parametrize("is_file_silent", [False, True])
async def test_archive_that_says_nothing_is_left_at_once(is_file_silent: bool) -> None:
    """Its process is ended first: the thread that waits for it is not waited for."""
    silent = Silent(is_file_silent=is_file_silent)

    async def read() -> None:
        async with open_members(silent) as next_member:
            await next_member()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.to_thread.run_sync(silent.is_asked.wait)
        nursery.cancel_scope.cancel()
    assert silent.said[0] == "ended"


async def test_rest_of_a_file_that_does_not_come_is_left_at_once() -> None:
    silent = Silent(is_file_silent=True)

    async def read() -> None:
        async with open_members(silent):
            async for _ in rest_of(ReadMember(silent, bytes(10))):
                pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.to_thread.run_sync(silent.is_asked.wait)
        nursery.cancel_scope.cancel()
    assert silent.said[0] == "ended"
