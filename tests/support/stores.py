"""Stores for tests that need many: the empty database is made once a process, and copied."""

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from node.chunks.storage import ChunkStorage
from node.crypto.certificates import make_tls_identity
from node.crypto.keyring import RootKey, Secrets
from node.crypto.keys import SealKey
from node.crypto.signing import SigningKey, node_id
from node.documents.signed import DocumentSigner, certify_node
from node.sql.database import Db, open_database
from node.store.context import StoreContext, open_store
from node.store.schema import migrations
from tests.support.examining import LocalExpander

ROOT_KEY = RootKey.new()
"""Of every store here."""


@lru_cache(1)
def _empty() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "metadata.db"
        open_database(path, ROOT_KEY.database_key(), migrations).close()
        return path.read_bytes()


def new_secrets(epochs: int = 1) -> tuple[Secrets, DocumentSigner]:
    """Return the secrets of a new facility's node, with so many epochs, and who signs for it."""
    facility, node = SigningKey.new(), SigningKey.new()
    now = time.time()
    content = Secrets(
        node,
        (SealKey.new(),),
        (make_tls_identity(node_id(node.public), now),),
        {number: secrets.token_bytes(32) for number in range(1, epochs + 1)},
    )
    return content, DocumentSigner(node, certify_node(facility, node, now))


def new_store(home: Path, storage: ChunkStorage | None = None) -> StoreContext:
    """Open a new store in a folder, whose chunks are in files of it or where the test says."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "metadata.db").write_bytes(_empty())
    content, signer = new_secrets()
    return open_store(
        home,
        ROOT_KEY,
        content,
        signer,
        reserve_bytes=0,
        storage=storage,
        expander=LocalExpander(),
    )


@contextmanager
def new_rows(folder: Path) -> Iterator[Db]:
    """Be in one transaction of a new database for the time of the block; nothing of it is kept."""
    path = folder / "metadata.db"
    path.write_bytes(_empty())
    database = open_database(path, ROOT_KEY.database_key(), migrations)
    try:
        database._connection.execute("BEGIN IMMEDIATE")
        yield database._db
    finally:
        database.close()
