"""What the parts of the store share: database, chunks, envelopes, keys."""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from node.chunks.files import FileChunkStorage
from node.chunks.storage import ChunkStorage
from node.crypto.keyring import RootKey, Secrets
from node.crypto.keys import DataKey, unwrap
from node.documents.signed import DocumentSigner
from node.domain.ids import FacilityId
from node.domain.packages import Package
from node.errors import StoreDenied, StoreError
from node.sql.database import Database, open_database
from node.store.ballast import Ballast
from node.store.clock_notes import last_believed
from node.store.envelopes import Envelopes
from node.store.needs import check_needs
from node.store.opening import Expander, NoExpander
from node.store.schema import migrations
from node.system import clock, safe_paths

_IF_DAMAGED = (
    "the database is damaged, or is another node's: move metadata.db* away and rebuild it with"
    " `emix store repair`, or restore a backup"
)


@dataclass(frozen=True)
class StoreContext:
    """An open store. Close it when done; the lock on the home is the caller's."""

    database: Database
    storage: ChunkStorage
    envelopes: Envelopes
    secrets: Secrets
    signer: DocumentSigner
    ballast: Ballast
    expander: Expander = field(default_factory=NoExpander)
    removals: "Removals" = field(default_factory=lambda: Removals())

    @property
    def facility(self) -> FacilityId:
        """This node's facility."""
        return self.signer.facility_id

    def data_key(self, package: Package) -> DataKey:
        """Return a package's data key; `BadDataKey` if its row was changed."""
        keys = self.secrets.epoch_keys(package.epoch)
        return unwrap(keys, package.epoch, package.origin, package.package_id, package.wrapped_key)

    def wrap(self, key: DataKey, origin: FacilityId) -> tuple[int, bytes]:
        """Return the current epoch and the key wrapped under it."""
        epoch = self.secrets.epoch
        return epoch, key.wrap(self.secrets.epoch_keys(epoch), epoch, origin)

    def close(self) -> None:
        """Close the database and the chunk storage."""
        self.database.close()
        self.storage.close()


def open_store(
    home: Path,
    root_key: RootKey,
    secrets: Secrets,
    signer: DocumentSigner,
    *,
    reserve_bytes: int,
    ballast_bytes: int = 0,
    may_be_lost: bool = False,
    storage: ChunkStorage | None = None,
    expander: Expander | None = None,
) -> StoreContext:
    """Open or create the store in a home that this process has locked.

    The process's clock is judged anew, by the last time that was believed here. The chunks are in
    `storage`, or else in files of the home. Without an `expander` none of them can be opened.

    Raises:
        StoreDenied: this user may not use a part of it; the message names it and its owner.
        StoreError: the database does not open, or is gone while its envelopes are there; or what
            opens its chunks is not installed.
    """
    path = home / "metadata.db"
    _check_usable(home)
    storage = storage or FileChunkStorage(home / "chunks", reserve_bytes)
    envelopes = Envelopes(home / "envelopes", secrets)
    is_lost = not path.exists() or path.stat().st_size == 0
    if is_lost and not may_be_lost and next(envelopes.paths(), None) is not None:
        raise StoreError(
            "metadata.db is missing, but the home has envelopes: restore metadata.db, or rebuild it"
            " with `emix store repair`"
        )
    ballast = Ballast(home, ballast_bytes)

    with ballast.in_need():  # its log and index are made anew at every start
        database = open_database(
            path, root_key.database_key(), migrations, if_damaged=_IF_DAMAGED, spare=ballast
        )
    ballast.fill()
    try:
        check_needs(database)
    except BaseException:
        database.close()
        raise
    # Node and commands alike: a time that a wrong clock wrote would be believed at the next start.
    clock.CLOCK.begin(database.read_sync(last_believed))
    return StoreContext(
        ballast=ballast,
        database=database,
        storage=storage,
        envelopes=envelopes,
        secrets=secrets,
        signer=signer,
        expander=expander or NoExpander(),
    )


def _check_usable(home: Path) -> None:
    """Check that this user may use a store's folders, before anything is decided.

    An unreadable folder would appear empty, and its chunks would be lost. The chunk storage checks
    its own folders.
    """
    for path in (home, home / "envelopes"):
        rights = os.R_OK | os.W_OK | (os.X_OK if path.is_dir() else 0)
        if path.exists() and (why := safe_paths.denial(path, rights)):
            raise StoreDenied(f"the store cannot be used: {why}")


class Removals:
    """Holds removals back while a copy of the store is made. Used from worker threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._copies = 0

    @contextmanager
    def allowed(self) -> Iterator[bool]:
        """Keep copies from beginning for the time of the block; False while one is made."""
        with self._lock:
            yield self._copies == 0

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Have nothing removed for the time of the block."""
        with self._lock:
            self._copies += 1
        try:
            yield
        finally:
            with self._lock:
                self._copies -= 1


def marks(values: Sequence[object]) -> str:
    """Return as many question marks as there are values, for an SQL list."""
    return ", ".join("?" * len(values))
