"""Chunk storage on local files, one file a chunk."""

import errno
import os
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from node.chunks.storage import Requests
from node.domain.ids import ChunkId
from node.errors import ChunkDamaged, ChunkNotFound, StoreDenied, StoreError, StoreFull
from node.system import durable_files, safe_paths

_UNREADABLE = (errno.EIO, errno.EUCLEAN, errno.EBADMSG, errno.EISDIR)


class FileChunkStorage:
    """Chunks as files: `<root>/<first two characters>/<chunk id>`."""

    def __init__(self, root: Path, reserve_bytes: int) -> None:
        """Make the folder if need be, and remove what a crash left half-written.

        Raises:
            StoreDenied: this user may not use a part of it; then nothing was changed.
        """
        self._root = root
        self._reserve_bytes = reserve_bytes
        self._counting = threading.Lock()
        self._writing_bytes = 0
        self.check()
        durable_files.make_directory(root)
        durable_files.remove_temporaries(root)

    def _path(self, chunk_id: ChunkId) -> Path:
        name = str(chunk_id)
        return self._root / name[:2] / name

    def put(self, chunk_id: ChunkId, sealed: bytes) -> None:
        """See `ChunkStorage.put`."""
        path = self._path(chunk_id)
        if self.size(chunk_id) == len(sealed) and self._holds(chunk_id, sealed):
            return
        with self._room_for(len(sealed)):
            self._write(path, sealed)

    @contextmanager
    def _room_for(self, size: int) -> Iterator[None]:
        """Hold room while a chunk is written: several threads never count on the same bytes."""
        with self._counting:
            if self.free_bytes() - self._writing_bytes < size:
                raise StoreFull("the disk is full up to the reserve; free space and try again")
            self._writing_bytes += size
        try:
            yield
        finally:
            with self._counting:
                self._writing_bytes -= size

    def _write(self, path: Path, sealed: bytes) -> None:
        try:
            durable_files.write_synced(path, sealed)
        except StoreError as exc:
            if not isinstance(exc.__cause__, FileNotFoundError):
                raise
            path.parent.mkdir(mode=0o700, exist_ok=True)
            durable_files.sync_directories([self._root])
            durable_files.write_synced(path, sealed)

    def _holds(self, chunk_id: ChunkId, sealed: bytes) -> bool:
        try:
            return self.get(chunk_id) == sealed
        except StoreError:
            return False

    def sync(self, chunk_ids: Iterable[ChunkId]) -> None:
        """See `ChunkStorage.sync`."""
        durable_files.sync_directories(
            sorted({self._path(chunk_id).parent for chunk_id in chunk_ids})
        )

    def get(self, chunk_id: ChunkId) -> bytes:
        """See `ChunkStorage.get`."""
        try:
            return self._path(chunk_id).read_bytes()
        except FileNotFoundError as exc:
            raise ChunkNotFound(f"chunk {chunk_id.short()} is not in the store") from exc
        except PermissionError:
            with durable_files.translated():
                raise
        except OSError as exc:
            # A sector that cannot be read is damage; what the system lacks for the moment is not.
            error = ChunkDamaged if exc.errno in _UNREADABLE else StoreError
            reason = os.strerror(exc.errno or 0)
            raise error(f"chunk {chunk_id.short()} cannot be read ({reason})") from exc

    def size(self, chunk_id: ChunkId) -> int | None:
        """See `ChunkStorage.size`."""
        with durable_files.translated(), suppress(FileNotFoundError):
            return self._path(chunk_id).stat().st_size
        return None

    def delete(self, chunk_ids: Iterable[ChunkId]) -> None:
        """See `ChunkStorage.delete`."""
        parents = set()
        with durable_files.translated():
            for chunk_id in chunk_ids:
                path = self._path(chunk_id)
                path.unlink(missing_ok=True)
                if path.parent.exists():
                    parents.add(path.parent)
        durable_files.sync_directories(sorted(parents))

    def contents(self) -> Iterator[tuple[ChunkId, int]]:
        """See `ChunkStorage.contents`."""
        for chunk_id in self.ids():
            if (size := self.size(chunk_id)) is not None:
                yield chunk_id, size

    def ids(self) -> Iterator[ChunkId]:
        """See `ChunkStorage.ids`."""
        for folder in self.folders()[1:]:
            with durable_files.translated():
                names = [entry.name for entry in os.scandir(folder)]
            for name in names:
                with suppress(ValueError):  # a foreign file, which is ignored
                    yield ChunkId.parse(name)

    def free_bytes(self) -> int:
        """See `ChunkStorage.free_bytes`."""
        return max(0, shutil.disk_usage(self._root).free - self._reserve_bytes)

    def use_reserve(self, reserve_bytes: int) -> None:
        """See `ChunkStorage.use_reserve`."""
        self._reserve_bytes = reserve_bytes

    def check(self) -> None:
        """See `ChunkStorage.check`.

        An unreadable folder would appear empty, and its chunks would count as lost.
        """
        for path in self.folders():
            if why := safe_paths.denial(path, os.R_OK | os.W_OK | os.X_OK):
                raise StoreDenied(f"the store cannot be used: {why}")

    def close(self) -> None:
        """See `ChunkStorage.close`."""

    def where(self) -> str:
        """See `ChunkStorage.where`."""
        return ""

    def is_open(self) -> bool:
        """See `ChunkStorage.is_open`."""
        return False

    def requests(self) -> Mapping[tuple[str, str], Requests]:
        """See `ChunkStorage.requests`."""
        return {}

    def folders(self) -> Sequence[Path]:
        """See `ChunkStorage.folders`."""
        with durable_files.translated():
            if not self._root.exists():
                return []
            return [self._root, *(path for path in self._root.glob("??") if path.is_dir())]
