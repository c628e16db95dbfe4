"""Opens the store of a home: its database, and its chunks in the place that the settings name."""

from contextlib import ExitStack

from node.app.buckets import check_installed, open_bucket
from node.app.config import HOME, Config
from node.app.home import Home, Unlocked
from node.chunks.files import FileChunkStorage
from node.chunks.moving import MovingChunkStorage
from node.chunks.storage import ChunkStorage
from node.crypto.keyring import RootKey
from node.errors import ConfigError
from node.store.context import StoreContext, open_store
from node.store.opening import Expander

_MIB = 2**20


def open_home_store(
    home: Home,
    config: Config,
    unlocked: Unlocked,
    *,
    expander: Expander | None = None,
    may_be_lost: bool = False,
) -> StoreContext:
    """Open the store in a home that this process has locked. Blocking, for minutes at most.

    Without an `expander` none of its chunks can be opened.

    Raises:
        ConfigError: the object store's client or credentials cannot be used.
        StoreError: see `node.store.context.open_store`; or the object store does not answer.
    """
    return open_store(
        home.root,
        unlocked.root_key,
        unlocked.secrets,
        unlocked.signer,
        reserve_bytes=config.reserve_mib * _MIB,
        ballast_bytes=config.ballast_mib * _MIB,
        may_be_lost=may_be_lost,
        storage=_storage(home, config, unlocked.root_key),
        expander=expander,
    )


def _storage(home: Home, config: Config, root_key: RootKey) -> ChunkStorage | None:
    if not config.chunks and not config.chunks_before:
        return None
    with ExitStack() as closing_all:
        to = _place(home, config, root_key, config.chunks or HOME)
        closing_all.callback(to.close)
        if not config.chunks_before:
            to.check()
            closing_all.pop_all()
            return to
        before = _place(home, config, root_key, config.chunks_before)
        closing_all.callback(before.close)
        before.check()
        _check_apart(to, before)
        closing_all.pop_all()
        return MovingChunkStorage(to, before)


def _place(home: Home, config: Config, root_key: RootKey, text: str) -> ChunkStorage:
    if text == HOME:
        return FileChunkStorage(home.root / "chunks", config.reserve_mib * _MIB)
    return open_bucket(home, config, root_key, text)


def _check_apart(to: ChunkStorage, before: ChunkStorage) -> None:
    """Take the new place for this node, and check that it is not the old one by another name.

    Chunks would be deleted otherwise, once they had "moved".
    """
    same = ConfigError("[store] chunks and chunks_before are the same place; empty chunks_before")
    if not to.where() and not before.where():
        raise same
    if not to.where():
        return
    check_installed()
    from node.chunks.s3 import S3ChunkStorage

    if isinstance(to, S3ChunkStorage):
        if isinstance(before, S3ChunkStorage) and to.is_same_place(before):
            raise same
        to.claim()
