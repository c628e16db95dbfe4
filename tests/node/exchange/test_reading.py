"""Reading what is imported: all of a file, whatever its folder said of its size."""

from io import BytesIO
from typing import BinaryIO

import pytest

from node.crypto.digests import digest
from node.exchange.reading import WINDOW_BYTES, batches, read_files
from tests.incoming import PlainFile


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
