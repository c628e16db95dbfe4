"""Changing a node's audit log as somebody with the keys of its home can."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from node.app.home import Home, unlock
from node.sql.database import Database, Db
from node.store import audit_rows
from node.store.context import open_store
from tests.support.actors import actor
from tests.support.nodes import Node, wait_until


@contextmanager
def opened(node: Node) -> Iterator[Database]:
    """Open the database of a node that does not run, with the keys from its home."""
    keys = unlock(Home(node.home), None)
    context = open_store(node.home, keys.root_key, keys.secrets, keys.signer, reserve_bytes=0)
    try:
        yield context.database
    finally:
        context.close()


def cut(node: Node, entries: int) -> None:
    """Remove the newest entries."""
    with opened(node) as database:
        database.write_sync(
            lambda db: db.execute(
                "DELETE FROM audit WHERE sequence > (SELECT MAX(sequence) FROM audit) - ?",
                (entries,),
            )
        )


def rewrite(node: Node, kind: str) -> None:
    """Make the whole log anew, with right digests, and another name on entries of a kind."""
    with opened(node) as database:
        entries = database.read_sync(lambda db: list(audit_rows.entries(db)))
        assert any(entry.kind == kind for entry in entries)

        def work(db: Db) -> None:
            db.execute("DELETE FROM audit")
            for entry in entries:
                operator = "somebody else" if entry.kind == kind else entry.operator
                audit_rows.append(db, entry.kind, json.loads(entry.body), actor(operator))

        database.write_sync(work)


def reconnect(node: Node) -> None:
    """Stop and start a node; it has said Hello to its peers once this returns."""
    node.stop()
    started(node)


def started(node: Node) -> None:
    """Start a node, and wait until it is connected."""
    node.start()
    wait_until(
        lambda: all(p["state"] == "connected" for p in node.json("peers")["peers"]),
        f"{node.display_name} is not connected",
    )


def copied(node: Node, folder: Path) -> Path:
    """Copy the home of a node that does not run."""
    copy = folder / "copy-of-home"
    shutil.copytree(node.home, copy, symlinks=True)
    return copy


def put_back(node: Node, copy: Path) -> None:
    """Put an old copy of a home in its place."""
    shutil.rmtree(node.home)
    shutil.copytree(copy, node.home, symlinks=True)
