"""Checks arriving instances: each is rebuilt, digested, examined and compared to the manifest.

How this works. Plaintext comes chunk by chunk, in any order. Instances that lie whole in one
chunk are checked at once. An instance that spans chunks must be digested and parsed in order, so
one task, `follow`, reads such instances extent by extent. It takes a chunk's plaintext from a small
cache if it is there (nearly always), and else opens the chunk again. While `follow` is working and
the cache is full, `add` waits for it, so that carrying is no faster than checking.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence

import trio

from node.crypto.digests import Hasher, digest
from node.domain.index import ImageIndex, ImageIndexes, PackageIndex
from node.domain.manifest import AttachmentEntry, InstanceEntry, Manifest
from node.domain.verdicts import Checked, Doubt, Examined, Verdict
from node.errors import BadManifest, StoreError
from node.exchange.ports import Examiner, Slab

_CACHE_BYTES = 8 * 2**20


class Checker:
    """Checks one arriving package. Run `follow` beside the calls of `add`."""

    def __init__(
        self,
        manifest: Manifest,
        examiner: Examiner,
        reopen: Callable[[int], Awaitable[bytes]],
        source: str,
        threads: trio.CapacityLimiter | None = None,
    ) -> None:
        """Prepare for a manifest.

        Args:
            manifest: What the instances are compared to.
            examiner: Examines instances.
            reopen: Opens the chunk at a position again; returns its plaintext.
            source: The peer that sends the package.
            threads: Limits the threads that digest; trio's default limiter if None.
        """
        self._source = source
        self._threads = threads
        self._manifest = manifest
        self._examiner = examiner
        self._reopen = reopen
        self._whole: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
        self._split: list[int] = []
        self._split_positions: set[int] = set()
        # By position; of attachments after that of the last instance.
        self._entries: Sequence[InstanceEntry | AttachmentEntry] = (
            *manifest.instances,
            *manifest.attachments,
        )
        for i, entry in enumerate(self._entries):
            if len(entry.extents) == 1:
                extent = entry.extents[0]
                self._whole[extent.chunk_index].append((i, extent.offset, extent.length))
            else:
                self._split.append(i)
                self._split_positions.update(e.chunk_index for e in entry.extents)
        self._available: dict[int, trio.Event] = defaultdict(trio.Event)
        self._cache: dict[int, bytes] = {}
        self._needed: int | None = None  # where the task that follows is
        self._come: set[int] = set()  # of split instances' chunks, ready or not
        self._moved = trio.Event()
        self._images = ImageIndexes(len(manifest.instances))
        self._index = PackageIndex()  # merged as it comes: a peer may send 200,000 instances
        self._doubts: dict[int, Doubt] = {}
        self._reasons: dict[tuple[str, ...], tuple[str, ...]] = {}  # each kept once

    @property
    def checked(self) -> Checked:
        """The index of the instances checked so far, and the doubts about them."""
        doubts = sorted(self._doubts.values(), key=lambda doubt: doubt.position)
        return Checked(self._index, doubts, self._images)

    async def add(self, position: int, plaintext: bytes) -> None:
        """Check the instances that lie whole in a chunk, and offer it to those that do not.

        Raises:
            BadManifest: an instance is not what the manifest says.
        """
        if position in self._split_positions:
            await self._offer(position, plaintext)
        extents = self._whole.get(position)
        if not extents:
            return
        async with self._examiner.arena.slab(self._source) as slab:
            places = await trio.to_thread.run_sync(
                self._digest_and_lay_out, slab, plaintext, extents, limiter=self._threads
            )
            examined = await self._examiner.examine_files(slab, places) if places else []
        instances = [i for i, _, _ in extents if self._is_instance(i)]
        for i, found in zip(instances, examined, strict=True):
            self._hold(i, found)

    async def _offer(self, position: int, plaintext: bytes) -> None:
        """Have a chunk ready for the task that follows, if it can be expected soon."""
        self._come.add(position)
        while position != self._needed and self._is_full(plaintext) and self._is_following:
            await self._moved.wait()
        if position == self._needed or not self._is_full(plaintext):
            self._cache[position] = plaintext
        self._available[position].set()

    def _is_full(self, plaintext: bytes) -> bool:
        return sum(map(len, self._cache.values())) + len(plaintext) > _CACHE_BYTES

    @property
    def _is_following(self) -> bool:
        """Whether the next move needs nothing but time: no chunk that has not come yet."""
        return self._needed in self._come

    def _move_to(self, position: int | None) -> None:
        self._needed = position
        self._moved.set()
        self._moved = trio.Event()

    def _digest_and_lay_out(
        self, slab: Slab, plaintext: bytes, extents: Sequence[tuple[int, int, int]]
    ) -> list[tuple[int, int]]:
        view = memoryview(plaintext)
        for i, offset, length in extents:
            _check_digest(self._entries[i], digest(view[offset : offset + length]))
        slab.write(0, plaintext)
        return [(offset, length) for i, offset, length in extents if self._is_instance(i)]

    def _is_instance(self, position: int) -> bool:
        """Whether it is examined; of an attachment nothing but its digest is looked at."""
        return position < len(self._manifest.instances)

    async def follow(self) -> None:
        """Check the instances that span chunks, in order; ends when all are checked.

        Raises:
            BadManifest: an instance is not what the manifest says.
        """
        for i in self._split:
            if not self._is_instance(i):
                await self._digest(self._manifest.attachments[i - len(self._manifest.instances)])
                continue
            instance = self._manifest.instances[i]
            found = await self._walk(instance)
            if found.is_failure:  # another instance may have ended the parser
                found = await self._walk(instance)
            self._hold(i, found)
        self._move_to(None)

    async def _walk(self, instance: InstanceEntry) -> Examined:
        """Digest and examine an instance that spans chunks.

        Raises:
            BadManifest: it has other bytes than the manifest says.
        """
        hasher = Hasher()
        async with self._examiner.large(instance.size_bytes, self._source) as examination:
            last = len(instance.extents) - 1
            found = None
            for n, extent in enumerate(instance.extents):
                plaintext = await self._plaintext(extent.chunk_index)
                piece = plaintext[extent.offset : extent.offset + extent.length]
                await trio.to_thread.run_sync(hasher.update, piece, limiter=self._threads)
                found = await examination.feed(piece, is_last=n == last)
        _check_digest(instance, hasher.digest())
        if found is None:
            raise BadManifest("an instance is empty")
        return found

    async def _digest(self, attachment: AttachmentEntry) -> None:
        """Digest an attachment that spans chunks.

        Raises:
            BadManifest: it has other bytes than the manifest says.
        """
        hasher = Hasher()
        for extent in attachment.extents:
            plaintext = await self._plaintext(extent.chunk_index)
            piece = plaintext[extent.offset : extent.offset + extent.length]
            await trio.to_thread.run_sync(hasher.update, piece, limiter=self._threads)
        _check_digest(attachment, hasher.digest())

    async def _plaintext(self, position: int) -> bytes:
        self._move_to(position)
        await self._available[position].wait()
        cached = self._cache.pop(position, None)
        self._move_to(position)  # there is room now
        return cached if cached is not None else await self._reopen(position)

    def _hold(self, position: int, found: Examined) -> None:
        """Check an instance's examination against the manifest, and keep the verdict.

        The verdict is this node's own: what a person at the origin has released is asked again.
        """
        instance = self._manifest.instances[position]
        if found.is_failure:
            raise StoreError("an instance could not be examined; it is tried again")
        same = found.is_instance and (
            found.sop_instance_uid,
            found.sop_class_uid,
            found.series_instance_uid,
            found.transfer_syntax_uid,
            found.study_instance_uid,
        ) == (
            instance.sop_instance_uid,
            instance.sop_class_uid,
            instance.series_instance_uid,
            instance.transfer_syntax_uid,
            self._manifest.study_instance_uid,
        )
        if not same:
            raise BadManifest("an instance does not match its entry in the manifest")
        self._index.add(found.index)
        self._images.put(position, ImageIndex.of(found.index))
        if found.verdict is not Verdict.CARRY:
            reasons = self._reasons.setdefault(found.reasons, found.reasons)
            self._doubts[position] = Doubt(position, found.verdict, reasons)


def _check_digest(entry: InstanceEntry | AttachmentEntry, found: bytes) -> None:
    if found != entry.digest:
        raise BadManifest("an instance or attachment does not match its digest in the manifest")
