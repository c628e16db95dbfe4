"""Rewrapping every package's data key under the newest epoch, so that older keys can be destroyed.

An envelope and its row are rewritten one after the other. Each is valid by itself: each names the
epoch whose key opens it, and an epoch key is destroyed only once a scan finds nothing that names
it. A kill in between loses nothing; the next run rewraps the rest.
"""

from collections.abc import Sequence
from dataclasses import replace

from node.crypto.keys import unwrap
from node.domain.packages import Package
from node.sql.database import Db
from node.store import package_rows
from node.store.context import StoreContext

_BATCH = 200


def rewrap(context: StoreContext) -> int:
    """Wrap all data keys under the current epoch; return how many packages were moved. Blocks.

    Raises:
        StoreError: an envelope does not open, so that its package could not be moved.
        BadDataKey: a row does not; nothing of what is left was changed.
    """
    _rewrap_envelopes(context)
    packages = context.database.read_sync(
        lambda db: package_rows.find_packages(db, "epoch <> ?", (context.secrets.epoch,))
    )
    for start in range(0, len(packages), _BATCH):
        _rewrap_rows(context, packages[start : start + _BATCH])
    return len(packages)


def epochs_in_use(context: StoreContext) -> set[int]:
    """Return which epochs rows and envelopes name. Blocks; `StoreError` for one that is damaged."""
    rows = context.database.read_sync(
        lambda db: {int(row[0]) for row in db.execute("SELECT DISTINCT epoch FROM packages")}
    )
    return rows | {context.envelopes.epoch_of(path) for path in context.envelopes.paths()}


def _rewrap_envelopes(context: StoreContext) -> None:
    for path in context.envelopes.paths():
        if context.envelopes.epoch_of(path) == context.secrets.epoch:
            continue
        old = context.envelopes.read(path)
        keys = context.secrets.epoch_keys(old.epoch)
        key = unwrap(keys, old.epoch, old.origin, old.package_id, old.wrapped_key)
        epoch, wrapped = context.wrap(key, old.origin)
        context.envelopes.put(replace(old, epoch=epoch, wrapped_key=wrapped))


def _rewrap_rows(context: StoreContext, packages: Sequence[Package]) -> None:
    moved = [(*context.wrap(context.data_key(p), p.origin), p.id) for p in packages]

    def work(db: Db) -> None:
        db.conn.executemany("UPDATE packages SET epoch = ?, wrapped_key = ? WHERE id = ?", moved)

    context.database.write_sync(work)
