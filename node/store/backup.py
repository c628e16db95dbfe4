"""A copy of a whole running node, file by file; the caller writes it."""

import os
import secrets
from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path

from node.chunks.storage import raise_if_general
from node.domain.backups import Piece
from node.domain.ids import ChunkId
from node.errors import ChunkNotFound, StoreError
from node.outside.copies import CONFIG, DATABASE, KEYRING, is_name
from node.store import package_rows
from node.store.context import StoreContext
from node.system.durable_files import TEMPORARY_SUFFIX, translated

_PIECE_BYTES = 1 << 20
_SLICE = 500


class Backup:
    """One copy of a node that runs. Use it in a `with` block. Blocking: on worker threads.

    Until the block ends nothing is removed from the store: studies that are deleted meanwhile are
    in the copy still.
    """

    def __init__(
        self, context: StoreContext, home: Path, had: Collection[bytes] = frozenset()
    ) -> None:
        """Prepare.

        Args:
            context: The node's store.
            home: Its home.
            had: Digests of chunks that the writer already has; these are named without content.
        """
        self._context = context
        self._home = home
        self._had = had

    @contextmanager
    def begun(self) -> Iterator["Backup"]:
        """Hold removals back for the time of the block."""
        with self._context.removals.held_back():
            yield self

    def size(self) -> tuple[int, int]:
        """Return how many files the copy has and how many bytes, about."""
        files = total = 0
        for path in [*self._home.iterdir(), *self._walk()]:
            if is_name(path.relative_to(self._home).as_posix()):
                with suppress(FileNotFoundError):
                    files, total = files + 1, total + path.lstat().st_size
        for chunk_id, size in self._context.storage.contents():
            is_had = chunk_id.digest in self._had
            files, total = files + 1, total + (0 if is_had else size)
        return files, total

    def pieces(self) -> Generator[Piece]:
        """Yield all files in pieces.

        The database comes first, then the envelopes that it names and all chunks, those of
        unfinished work included. The host key is left out: with the keyring beside it, it would
        open the copy for anybody who has the copy.

        Raises:
            StoreFull: there is no room in the home for a copy of the database.
            StoreError: a file that every copy needs cannot be read.
        """
        with self._database() as (path, named):
            yield from _pieces(DATABASE, path)
        for path in self._walk():
            name = path.relative_to(self._home).as_posix()
            # An envelope of later than the database would be one without rows.
            if path.name in named and is_name(name):
                # An envelope that was discarded meanwhile is gone, and nothing names it.
                with suppress(FileNotFoundError):
                    yield _whole(name, path)
        yield from self._chunks()
        for name in (CONFIG, KEYRING):
            yield from _pieces(name, self._home / name)

    def _walk(self) -> Iterator[Path]:
        for where, _, files in os.walk(self._home / "envelopes", onerror=_raise):
            yield from (Path(where) / file for file in files)

    def _chunks(self) -> Iterator[Piece]:
        """Yield the chunks that rows name, by the rows; and by the listing, which may lag, others.

        No row goes while the backup is made, so the rows of now have all that its database names.
        """
        database, after = self._context.database, b""
        while some := database.read_sync(
            partial(package_rows.chunks_after, after=after, limit=_SLICE)
        ):
            for chunk_id, is_present in some:
                piece = self._chunk(chunk_id)
                if piece is not None:
                    yield piece
                elif is_present:
                    yield Piece(_chunk_name(chunk_id), b"", "it is missing")
            after = some[-1][0].digest
        ids = self._context.storage.ids()
        while listed := list(islice(ids, _SLICE)):
            for chunk_id in database.read_sync(partial(package_rows.unnamed, chunk_ids=listed)):
                if piece := self._chunk(chunk_id):
                    yield piece

    def _chunk(self, chunk_id: ChunkId) -> Piece | None:
        """Return a chunk; None if it is not there. Where it cannot be read, the others go on.

        Raises:
            StoreError: none can be read now.
        """
        if chunk_id.digest in self._had:
            return Piece("", b"", had=chunk_id)
        try:
            return Piece(_chunk_name(chunk_id), self._context.storage.get(chunk_id))
        except ChunkNotFound:
            return None
        except StoreError as exc:
            raise_if_general(self._context.storage, exc)
            return Piece(_chunk_name(chunk_id), b"", str(exc))

    @contextmanager
    def _database(self) -> Iterator[tuple[Path, frozenset[str]]]:
        """Make a copy of the database beside it, and tell what envelopes it names."""
        path = self._home / f".{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
        try:
            named = self._context.database.copy_to(
                path,
                lambda db: frozenset(
                    self._context.envelopes.name(p.origin, p.package_id)
                    for p in package_rows.find_packages(db, "1", ())
                ),
            )
            yield path, named
        finally:
            path.unlink(missing_ok=True)


def _chunk_name(chunk_id: ChunkId) -> str:
    return f"chunks/{str(chunk_id)[:2]}/{chunk_id}"


def _whole(name: str, path: Path) -> Piece:
    """Return a file that is one of many: where it cannot be read, the others go on."""
    try:
        return Piece(name, path.read_bytes())
    except FileNotFoundError:
        raise
    except OSError as exc:
        return Piece(name, b"", f"it cannot be read ({os.strerror(exc.errno or 0)})")


def _pieces(name: str, path: Path) -> Iterator[Piece]:
    with translated(), path.open("rb") as handle:
        yield Piece(name, handle.read(_PIECE_BYTES))
        while data := handle.read(_PIECE_BYTES):
            yield Piece("", data)


def _raise(error: OSError) -> None:
    with translated():
        raise error
