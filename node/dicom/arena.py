"""Memory that the node and its parser processes share: slabs in an anonymous file.

It is never on disk (`memfd`). Once this process has mapped it, the file is sealed: nobody else,
a parser that was taken over least of all, can map it writable, write to it, or cut it off under
our feet. A slab is used by one task at a time.
"""

import fcntl
import mmap
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

SLAB_BYTES = 4 * 2**20
_F_SEAL_FUTURE_WRITE = 0x10  # since Linux 5.1; Python has no name for it


class Arena:
    """A fixed number of slabs. Waiting for a free one is what bounds memory."""

    def __init__(self, slabs: int) -> None:
        self.size = slabs * SLAB_BYTES
        self.fd = os.memfd_create("emix-arena", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, self.size)
        self._map = mmap.mmap(self.fd, self.size)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | _F_SEAL_FUTURE_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, seals)
        self._free = [i * SLAB_BYTES for i in range(slabs)]
        self._limiter = trio.Semaphore(slabs)

    @asynccontextmanager
    async def slab(self) -> AsyncGenerator["Slab"]:
        """Lend a slab for the time of the block."""
        async with self._limiter:
            offset = self._free.pop()
            try:
                yield Slab(self._map, offset)
            finally:
                self._free.append(offset)

    def close(self) -> None:
        """Unmap the memory."""
        self._map.close()
        os.close(self.fd)


class Slab:
    """`SLAB_BYTES` of shared memory at `offset` of the arena."""

    def __init__(self, memory: mmap.mmap, offset: int) -> None:
        self.offset = offset
        self._memory = memory

    def write(self, start: int, data: bytes) -> None:
        """Copy bytes into the slab; they must fit."""
        if start + len(data) > SLAB_BYTES:
            raise ValueError("more bytes than a slab holds")
        begin = self.offset + start
        self._memory[begin : begin + len(data)] = data
