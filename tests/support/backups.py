"""Homes and backups of them for tests, made without a process."""

from pathlib import Path

from node.app.home import Home, NewNode, make_home, unlock
from node.crypto.digests import digest
from node.crypto.keyring import RecoveryKit
from node.domain.ids import ChunkId
from node.outside.copies import BackupFolder
from node.store.backup import Backup
from node.store.context import StoreContext, open_store


def make_node(folder: Path) -> tuple[Home, RecoveryKit]:
    """Make a home with a host key, a few chunks and its recovery kit."""
    home, kit = Home(folder / "home"), folder / "kit"
    make_home(home, NewNode("Careful Clinic", kit, None, "127.0.0.1:0", "127.0.0.1:0"))
    context = open_home(home)
    for n in range(3):
        sealed = bytes([n + 1]) * 5000
        context.storage.put(ChunkId(digest(sealed)), sealed)
    context.close()
    return home, RecoveryKit.decode(kit.read_bytes())


def open_home(home: Home) -> StoreContext:
    """Open the store of a home with a host key."""
    keys = unlock(home, None)
    return open_store(home.root, keys.root_key, keys.secrets, keys.signer, reserve_bytes=0)


def write_backup(home: Home, folder: BackupFolder) -> BackupFolder:
    """Write a whole backup of a home into a folder."""
    context = open_home(home)
    try:
        return write_context(context, home, folder)
    finally:
        context.close()


def write_context(context: StoreContext, home: Home, folder: BackupFolder) -> BackupFolder:
    """Write a whole backup of a home whose store is open."""
    had = {chunk_id.digest for chunk_id in folder.base.chunks} if folder.base else set()
    with folder, Backup(context, home.root, had).begun() as backup:
        files, size = backup.size()
        folder.check_room(size, files)
        for piece in backup.pieces():
            assert not piece.problem
            if piece.had is not None:
                folder.keep(piece.had)
            else:
                folder.add(piece.name, piece.data)
        folder.finish()
    return folder


def names(folder: Path) -> list[str]:
    """Return what lies in a folder, by relative names."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))
