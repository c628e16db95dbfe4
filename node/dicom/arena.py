"""Memory that the node and its parser processes share, in anonymous files.

It is never on disk (`memfd`). The node writes slabs, which every parser reads. Once this process
has mapped them, their file is sealed: no other process, such as a compromised parser, can map it
writable, write to it, or truncate it. A slab is used by one task at a time.

What a parser expands for the node it writes into an output of its own, which no other parser can
see. The node copies from there before it looks at anything: a compromised parser could change it at
any time.
"""

import fcntl
import mmap
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from node.dicom.fairness import OWN, CpuBudget, FairPlaces
from node.domain.manifest import MAX_CHUNK_BYTES

SLAB_BYTES = MAX_CHUNK_BYTES
_NEVER_RESIZED = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_KEPT_SLABS, _SLABS_EACH = 2, 4
_F_SEAL_FUTURE_WRITE = 0x10  # since Linux 5.1; Python has no name for it


class Arena:
    """A fixed number of slabs. Waiting for a free one is what bounds memory.

    A source that has used up its CPU budget waits here, before it has a slab.
    """

    def __init__(self, slabs: int, budget: CpuBudget | None = None) -> None:
        self.size = slabs * SLAB_BYTES
        self.fd = os.memfd_create("emix-arena", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, self.size)
        self._map = mmap.mmap(self.fd, self.size)
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _NEVER_RESIZED | _F_SEAL_FUTURE_WRITE)
        self._free = [i * SLAB_BYTES for i in range(slabs)]
        self._budget = budget
        kept = _KEPT_SLABS if slabs > _KEPT_SLABS else 0
        self._places = FairPlaces(slabs, kept=kept, each=_SLABS_EACH)

    @asynccontextmanager
    async def slab(self, source: str = OWN) -> AsyncGenerator["Slab"]:
        """Lend a slab for the time of the block, to whoever bytes come from."""
        if self._budget is not None:
            await self._budget.wait(source)
        await self._places.acquire(source)
        offset = self._free.pop()
        try:
            yield Slab(self._map, offset, source)
        finally:
            self._free.append(offset)
            self._places.release(source)

    def close(self) -> None:
        """Unmap the memory."""
        self._map.close()
        os.close(self.fd)


class Slab:
    """`SLAB_BYTES` of shared memory at `offset` of the arena, lent to a source."""

    def __init__(self, memory: mmap.mmap, offset: int, source: str) -> None:
        self.offset = offset
        self.source = source
        self._memory = memory

    def write(self, start: int, data: bytes) -> None:
        """Copy bytes into the slab; they must fit."""
        if start + len(data) > SLAB_BYTES:
            raise ValueError("more bytes than a slab holds")
        begin = self.offset + start
        self._memory[begin : begin + len(data)] = data


class Output:
    """Memory that one parser writes, and that the node copies from."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("emix-output", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, SLAB_BYTES)
        # Else whoever reads it after a parser has cut it would be killed.
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _NEVER_RESIZED)
        self._map = mmap.mmap(self.fd, SLAB_BYTES, prot=mmap.PROT_READ)

    def copy(self, length: int) -> bytes:
        """Return a copy of the first bytes."""
        return self._map[:length]

    def close(self) -> None:
        """Unmap the memory."""
        self._map.close()
        os.close(self.fd)
