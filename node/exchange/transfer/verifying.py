"""Checks arriving instances: each is rebuilt, digested, examined and compared to the manifest.

How this works. Chunks come decrypted, one by one, in any order. The examiner expands them in its
parsers, digests what lies in them and examines it: no plaintext is in this process. Instances that
lie whole in one chunk are checked at once. An instance that spans chunks must be digested and
parsed in order, so one task, `follow`, handles such instances piece by piece. It takes a chunk from
a small cache if it is there (nearly always), and else has it decrypted again. While `follow` is
working and the cache is full, `add` waits for it, so that carrying is no faster than checking.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import trio

from node.crypto.digests import digest
from node.domain.encoded import EncodedChunk, PieceFindings
from node.domain.index import ImageIndex, ImageIndexes, PackageIndex
from node.domain.manifest import AttachmentEntry, InstanceEntry, Manifest
from node.domain.verdicts import Checked, Doubt, Examined, Verdict
from node.errors import BadManifest, ChunkDamaged, StoreError
from node.exchange.ports import Examiner

_CACHE_BYTES = 8 * 2**20

_Entry = InstanceEntry | AttachmentEntry


@dataclass(slots=True)
class _Layout:
    """What lies in one chunk.

    Attributes:
        lengths: Of its pieces, in order.
        whole: The pieces that are a whole instance or attachment, by their number here, with the
            number of the entry.
        has_parts: Whether others are in it.
    """

    lengths: list[int] = field(default_factory=list)
    whole: dict[int, int] = field(default_factory=dict)
    has_parts: bool = False


class Checker:
    """Checks one arriving package. Run `follow` beside the calls of `add`."""

    def __init__(
        self,
        manifest: Manifest,
        examiner: Examiner,
        unseal_again: Callable[[int], Awaitable[EncodedChunk]],
        source: str,
    ) -> None:
        """Prepare for a manifest.

        Args:
            manifest: What the instances are compared to.
            examiner: Examines instances.
            unseal_again: Returns the chunk at a position, which came before.
            source: The peer that sends the package.
        """
        self._source = source
        self._manifest = manifest
        self._examiner = examiner
        self._unseal_again = unseal_again
        self._layouts = [_Layout() for _ in manifest.chunks]
        # Instances and attachments that span chunks: by number, where their pieces are.
        self._split: dict[int, list[tuple[int, int]]] = {}
        # By number; attachments after the last instance.
        self._entries: Sequence[_Entry] = (*manifest.instances, *manifest.attachments)
        for i, entry in enumerate(self._entries):
            self._lay_out(i, entry)
        self._available: dict[int, trio.Event] = defaultdict(trio.Event)
        self._cache: dict[int, EncodedChunk] = {}
        self._needed: int | None = None  # where the task that follows is
        self._come: set[int] = set()  # of split instances' chunks, ready or not
        self._moved = trio.Event()
        self._images = ImageIndexes(len(manifest.instances))
        self._index = PackageIndex()  # merged as it comes: a peer may send 200,000 instances
        self._doubts: dict[int, Doubt] = {}
        self._reasons: dict[tuple[str, ...], tuple[str, ...]] = {}  # each kept once

    def _lay_out(self, number: int, entry: _Entry) -> None:
        places = []
        for extent in entry.extents:
            layout = self._layouts[extent.chunk_index]
            places.append((extent.chunk_index, len(layout.lengths)))
            layout.lengths.append(extent.length)
        if len(places) == 1:
            ((position, piece),) = places
            self._layouts[position].whole[piece] = number
            return
        self._split[number] = places
        for position, _ in places:
            self._layouts[position].has_parts = True

    @property
    def checked(self) -> Checked:
        """The index of the instances checked so far, and the doubts about them."""
        doubts = sorted(self._doubts.values(), key=lambda doubt: doubt.position)
        return Checked(self._index, doubts, self._images)

    async def add(self, position: int, chunk: EncodedChunk) -> None:
        """Check what lies whole in a chunk, and offer the chunk to what does not.

        Raises:
            BadManifest: an instance is not what the manifest says.
            ChunkDamaged: the chunk does not expand to what the manifest says.
        """
        layout = self._layouts[position]
        if layout.has_parts:
            await self._offer(position, chunk)
        if not layout.whole:
            return
        files = [piece for piece, number in layout.whole.items() if self._is_instance(number)]
        found = await self._examiner.examine_chunk(chunk, layout.lengths, files, self._source)
        self._check_pieces(position, found.digests)
        for piece, number in layout.whole.items():
            _check_digest(self._entries[number], found.digests[piece])
        for piece, examined in zip(files, found.examined, strict=True):
            self._hold(layout.whole[piece], examined)

    async def _offer(self, position: int, chunk: EncodedChunk) -> None:
        """Have a chunk ready for the task that follows, if it can be expected soon."""
        self._come.add(position)
        while position != self._needed and self._is_full(chunk) and self._is_following:
            await self._moved.wait()
        if position == self._needed or not self._is_full(chunk):
            self._cache[position] = chunk
        self._available[position].set()

    def _is_full(self, chunk: EncodedChunk) -> bool:
        kept = sum(len(other.encoded) for other in self._cache.values())
        return kept + len(chunk.encoded) > _CACHE_BYTES

    @property
    def _is_following(self) -> bool:
        """Whether the next move needs nothing but time: no chunk that has not come yet."""
        return self._needed in self._come

    def _move_to(self, position: int | None) -> None:
        self._needed = position
        self._moved.set()
        self._moved = trio.Event()

    def _is_instance(self, number: int) -> bool:
        """Whether it is examined; of an attachment nothing but its digest is looked at."""
        return number < len(self._manifest.instances)

    async def follow(self) -> None:
        """Check what spans chunks, in order; ends when all is checked.

        Raises:
            BadManifest: an instance is not what the manifest says.
            ChunkDamaged: a chunk does not expand to what the manifest says.
        """
        for number, places in self._split.items():
            found = await self._walk(number, places)
            if found.examined.is_failure:  # another instance may have ended the parser
                found = await self._walk(number, places)
            if found.digest:
                _check_digest(self._entries[number], found.digest)
            if self._is_instance(number):
                self._hold(number, found.examined)
            elif not found.digest:
                raise StoreError("an attachment could not be digested; it is tried again")
        self._move_to(None)

    async def _walk(self, number: int, places: Sequence[tuple[int, int]]) -> PieceFindings:
        """Digest and examine what spans chunks; return what was found at its end."""
        size, is_dicom = self._entries[number].size_bytes, self._is_instance(number)
        found = None
        async with self._examiner.spanning(size, self._source, is_dicom=is_dicom) as examination:
            for n, (position, piece) in enumerate(places, start=1):
                chunk = await self._chunk(position)
                lengths, is_last = self._layouts[position].lengths, n == len(places)
                found = await examination.feed(chunk, lengths, piece, is_last=is_last)
                self._check_pieces(position, found.digests)
        if found is None:
            raise BadManifest("an instance is empty")
        return found

    def _check_pieces(self, position: int, digests: Sequence[bytes]) -> None:
        entry = self._manifest.chunks[position]
        if digest(b"".join(digests)) != entry.pieces_digest:
            raise ChunkDamaged(f"chunk {entry.chunk_id.short()} does not match its manifest")

    async def _chunk(self, position: int) -> EncodedChunk:
        self._move_to(position)
        await self._available[position].wait()
        cached = self._cache.pop(position, None)
        self._move_to(position)  # there is room now
        return cached if cached is not None else await self._unseal_again(position)

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


def _check_digest(entry: _Entry, found: bytes) -> None:
    if found != entry.digest:
        raise BadManifest("an instance or attachment does not match its digest in the manifest")
