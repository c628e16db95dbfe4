"""Chunks on their way: read for a peer, put from a peer, unsealed to be checked. Blocking."""

from collections.abc import Iterable, Sequence
from functools import partial

from node.chunks.format import check_sealed, unseal_chunk
from node.codec.kinds import Codec
from node.crypto.digests import digest
from node.documents.arrivals import Arrival
from node.domain.capabilities import Capability
from node.domain.encoded import EncodedChunk
from node.domain.ids import ChunkId
from node.domain.manifest import ChunkEntry
from node.errors import BadManifest, ChunkDamaged, ChunkNotFound
from node.sql.database import Db
from node.store import package_rows
from node.store.context import StoreContext, marks
from node.store.lost import noted_if_lost
from node.store.removal import remove_packages

_SLICE = 500


class ChunkAccess:
    """What transfers do with chunks. Call it on worker threads."""

    def __init__(self, context: StoreContext) -> None:
        self._context = context

    def get_sealed(self, entry: ChunkEntry) -> bytes:
        """Return a chunk as sealed, checked against its id.

        Raises:
            ChunkNotFound, ChunkDamaged: the store no longer has it as it was.
        """
        with noted_if_lost(self._context, entry.chunk_id):
            sealed = self._context.storage.get(entry.chunk_id)
            check_sealed(entry, sealed)
        return sealed

    def put_sealed(self, arrival: Arrival, entry: ChunkEntry, sealed: bytes) -> EncodedChunk:
        """Keep a chunk that a peer sent, and return what is in it; durable after `sync`.

        Raises:
            ChunkDamaged: it is not the chunk that the manifest names, or cannot be decrypted.
                It was not kept.
            BadManifest: opening it takes what the manifest does not say.
        """
        keys = arrival.data_key.sealing_keys()
        chunk = unseal_chunk(keys, arrival.package.package_id, entry, sealed)
        if chunk.codec == Codec.SMALL and Capability.JPEG_LS not in arrival.package.needs:
            raise BadManifest("a chunk has JPEG-LS in it, which the manifest does not say")
        self._context.storage.put(entry.chunk_id, sealed)
        return chunk

    def unseal_stored(self, arrival: Arrival, entry: ChunkEntry) -> EncodedChunk:
        """Return what is in a chunk that is here already.

        Raises:
            ChunkNotFound, ChunkDamaged: the local storage has lost or damaged it.
            BadManifest: its bytes are what its name says, and not what the manifest says.
        """
        keys = arrival.data_key.sealing_keys()
        sealed = self._context.storage.get(entry.chunk_id)
        check_sealed(entry, sealed)
        try:
            return unseal_chunk(keys, arrival.package.package_id, entry, sealed)
        except ChunkDamaged as exc:
            raise BadManifest("a chunk is not what the manifest says") from exc

    def find_unrecorded(self, arrival: Arrival, entries: Sequence[ChunkEntry]) -> list[int]:
        """Return the positions of chunks that a kill left here without recording them.

        They were renamed into place after their own sync; their directories are synced here
        before they are counted, and their digests are checked when they are opened. What any
        other package names is left out: a peer must not learn what else is here.
        """
        candidates = [
            position
            for position, entry in enumerate(entries)
            if position not in arrival.present
            and self._context.storage.size(entry.chunk_id) == entry.sealed_bytes
        ]
        elsewhere = self._named_elsewhere(arrival, [entries[p].chunk_id for p in candidates])
        found = [p for p in candidates if entries[p].chunk_id.digest not in elsewhere]
        self.sync(entries[position].chunk_id for position in found)
        return found

    def _named_elsewhere(self, arrival: Arrival, chunk_ids: Sequence[ChunkId]) -> set[bytes]:
        found: set[bytes] = set()
        for i in range(0, len(chunk_ids), _SLICE):
            some = [chunk_id.digest for chunk_id in chunk_ids[i : i + _SLICE]]
            found |= self._context.database.read_sync(partial(_named, arrival.package.id, some))
        return found

    def delete_damaged(self, chunk_id: ChunkId) -> None:
        """Delete a chunk whose bytes are not what its name says; no other is ever deleted."""
        try:
            sealed = self._context.storage.get(chunk_id)
        except ChunkNotFound:
            return
        if digest(sealed) != chunk_id.digest:
            self._context.storage.delete([chunk_id])

    def sync(self, chunk_ids: Iterable[ChunkId]) -> None:
        """Make chunks durable that were put before."""
        self._context.storage.sync(chunk_ids)

    def free_bytes(self) -> int:
        """Return how much more fits, the reserve left out."""
        return self._context.storage.free_bytes()

    def used_bytes(self) -> int:
        """Return the bytes of what packages name, of their envelopes, and of the database."""
        database = self._context.database
        return database.read_sync(package_rows.used_bytes) + database.used_bytes()

    def remove_packages(self, rows: Sequence[int]) -> None:
        """Remove packages that will never be complete."""
        remove_packages(self._context, rows)


def _named(package: int, digests: Sequence[bytes], db: Db) -> set[bytes]:
    """Return those chunks that other packages than this name."""
    sql = f"SELECT chunk_id FROM chunks WHERE package != ? AND chunk_id IN ({marks(digests)})"
    return {row[0] for row in db.execute(sql, (package, *digests))}
