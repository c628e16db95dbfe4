"""Makes a home from a backup. The backup is checked before anything is written.

The files are written into a hidden folder inside the home, and renamed when all of them are
complete and synced. So the home may be a mount point or the target of a link. The keyring is
renamed last: without it the folder is not a home. An error leaves nothing there; after a kill, the
next attempt removes what is left.
"""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from node.app.home import Home, check_length, load_keyring, with_new_host_key
from node.crypto.digests import Hasher
from node.crypto.keyring import RecoveryKit, unlock_with_kit
from node.errors import ConfigError, UsageError
from node.outside.copies import (
    CONFIG,
    DATABASE,
    KEYRING,
    Listed,
    Problem,
    find_missing,
    open_listed,
    read_inventory,
)
from node.system import safe_paths
from node.system.durable_files import sync_directories, sync_tree

_ASIDE = ".restoring"
_HOST_KEY = "host.key"
_ORDER = ("chunks", "envelopes", DATABASE, CONFIG, _HOST_KEY, KEYRING)
"""In which parts get their names; the keyring makes it a home."""

_PIECE_BYTES = 1 << 20
_NAMED = 5
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Restored:
    """What was restored; `missing` are files that the backup lacks or has damaged."""

    files: int
    bytes: int
    missing: Sequence[Problem]


def restore_home(
    source: Path,
    home: Home,
    kit: RecoveryKit | None,
    *,
    takes_incomplete: bool = False,
    report: Callable[[int, int], None] = lambda _, __: None,
) -> Restored:
    """Make a home from a backup; durable once this returns.

    Args:
        source: The backup.
        home: An empty folder, or a new one in a folder that exists.
        kit: Makes a new host key, needed if the node has no passphrase: backups have none.
        takes_incomplete: Restore the rest of a backup that lacks parts.
        report: Called with the bytes written and the bytes in all.

    Raises:
        ConfigError: the backup is not whole, or the home cannot be made there. Nothing is left.
        KeysError: the kit is another node's. Nothing was written.
        UsageError: a recovery kit is needed. Nothing was written.
    """
    _check_empty(home.root, source)
    files = read_inventory(source)
    keys = _keys(source, kit)
    check_length(home.root)
    missing = find_missing(source, files)
    _check_whole(source, missing, takes_incomplete=takes_incomplete)
    safe_paths.check_tree(source)
    left = {name: listed for name, listed in files.items() if name not in _names(missing)}
    total = sum(listed.size_bytes for listed in left.values())
    with _Place(home.root, source) as place:
        place.check_room(total, len(left))
        damaged, done = [], 0
        for name, listed in left.items():
            problem = place.copy(source, name, listed)
            if problem is not None:
                damaged.append(problem)
                _check_whole(source, damaged, takes_incomplete=takes_incomplete)
            done += listed.size_bytes
            report(done, total)
        for name, data in keys.items():
            place.write(name, data)
        place.publish()
    lost = _names(damaged)
    kept = [listed.size_bytes for name, listed in left.items() if name not in lost]
    return Restored(len(kept), sum(kept), [*missing, *damaged])


def _check_empty(root: Path, source: Path) -> None:
    """Check that the home is empty, before the backup is checked."""
    if not root.is_dir():
        return
    found = {path.name for path in root.iterdir()} - {safe_paths.LOST_AND_FOUND}
    if found and not _is_of_killed(found):
        raise _not_empty(root, source)


def _is_of_killed(names: set[str]) -> bool:
    """Return whether a folder has the remains of a killed restore."""
    return _ASIDE in names and KEYRING not in names


def _not_empty(root: Path, source: Path) -> ConfigError:
    return ConfigError(
        f"{root} is not empty, and restore overwrites nothing; name a new or empty home:"
        f" emix --home DIR restore {source}"
    )


def _keys(source: Path, kit: RecoveryKit | None) -> Mapping[str, bytes]:
    """Return the files that a kit makes; they take the place of the backup's."""
    ring = load_keyring(Home(source))
    if ring.has_slot("passphrase"):
        if kit is not None:
            unlock_with_kit(ring, kit)
        return {}  # with a host key, anyone who has the disk could open the home
    if kit is not None:
        keyring, host_key = with_new_host_key(ring, kit)
        return {_HOST_KEY: host_key, KEYRING: keyring.encode()}
    raise UsageError(
        "the node has no passphrase, and no backup contains its host key: give --recovery-kit"
    )


class _Unreadable(Exception):
    """A file of the backup cannot be read to its end."""


def _read(source: BinaryIO) -> bytes:
    try:
        return source.read(_PIECE_BYTES)
    except OSError as exc:
        raise _Unreadable(os.strerror(exc.errno or 0)) from exc


def _names(problems: Sequence[Problem]) -> frozenset[str]:
    return frozenset(problem.name for problem in problems)


def _check_whole(source: Path, problems: Sequence[Problem], *, takes_incomplete: bool) -> None:
    if not problems or (takes_incomplete and KEYRING not in _names(problems)):
        return
    lines = [f"{p.name} {p.what}" for p in problems[:_NAMED]]
    lines += [f"and {len(problems) - _NAMED} more"] if problems[_NAMED:] else []
    said = f"the backup in {source} is not whole, so nothing was restored:"
    advice = "use another backup, or restore what is left of this one with --incomplete"
    raise ConfigError("\n".join([said, *(f"  {line}" for line in lines), advice]))


class _Place:
    """The folder that becomes a home. Use it in a `with` block."""

    def __init__(self, root: Path, source: Path) -> None:
        self._root, self._source = root, source
        self._real = root
        self._fd = self._aside = -1
        self._closing = ExitStack()
        self._is_made = self._is_published = False

    def __enter__(self) -> Self:
        self._is_made = not os.path.lexists(self._root)
        with self._closing:
            try:
                opened = safe_paths.folder(self._root, make=True, is_ours=True)
                self._fd, self._real = self._closing.enter_context(opened)
                found = set(safe_paths.names(self._fd))
                if _is_of_killed(found):
                    self._remove()
                    found = set(safe_paths.names(self._fd))
                if found:
                    raise _not_empty(self._root, self._source)
                safe_paths.shut(self._fd, self._real)
                os.mkdir(_ASIDE, 0o700, dir_fd=self._fd)
                self._closing.callback(self._discard)
                self._aside = os.open(_ASIDE, _FOLDER, dir_fd=self._fd)
                self._closing.callback(os.close, self._aside)
                safe_paths.shut(self._aside, self._real)
            except OSError as exc:
                raise self._failed(exc) from exc
            self._closing = self._closing.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def _discard(self) -> None:
        if self._is_published:
            return
        self._remove()
        if self._is_made:
            with suppress(OSError):
                self._real.rmdir()

    def _remove(self) -> None:
        for name in (_ASIDE, *_ORDER):
            with suppress(FileNotFoundError, NotADirectoryError):
                shutil.rmtree(name, dir_fd=self._fd)
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._fd)

    def check_room(self, total_bytes: int, files: int) -> None:
        """Check that there is room for so much, with a reserve left; `StoreFull` if not."""
        safe_paths.check_room(self._fd, total_bytes, files, self._root)

    def copy(self, source: Path, name: str, listed: Listed) -> Problem | None:
        """Copy a file of a backup; a damaged one is left out and returned as a problem."""
        try:
            with open_listed(source, name) as handle:
                hasher = Hasher()
                with self._new(name) as target:
                    while piece := _read(handle):
                        hasher.update(piece)
                        target.write(piece)
        except _Unreadable as exc:
            os.unlink(name, dir_fd=self._aside)
            return Problem(name, f"cannot be read ({exc})")
        except OSError as exc:
            raise self._failed(exc) from exc
        if hasher.digest() == listed.digest:
            return None
        os.unlink(name, dir_fd=self._aside)
        return Problem(name, "is damaged")

    def write(self, name: str, data: bytes) -> None:
        """Write a file that is not of the backup, in place of one of it."""
        try:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._aside)
            with self._new(name) as target:
                target.write(data)
        except OSError as exc:
            raise self._failed(exc) from exc

    def _new(self, name: str) -> BinaryIO:
        above = ""
        for part in name.split("/")[:-1]:
            above = f"{above}{part}/"
            with suppress(FileExistsError):
                os.mkdir(above, 0o700, dir_fd=self._aside)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        mode = 0o400 if name == _HOST_KEY else 0o600
        return os.fdopen(os.open(name, flags, mode, dir_fd=self._aside), "wb")

    def publish(self) -> None:
        """Have all parts appear under their names, durably."""
        try:
            for name in ("chunks", "envelopes"):
                with suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=self._aside)
            sync_tree(self._real / _ASIDE)
            for name in _ORDER:
                with suppress(FileNotFoundError):
                    os.rename(name, name, src_dir_fd=self._aside, dst_dir_fd=self._fd)
                if name == _HOST_KEY:
                    sync_directories([self._real])
            os.rmdir(_ASIDE, dir_fd=self._fd)
            sync_directories([self._real])  # its own name was synced when it was made
        except OSError as exc:
            raise self._failed(exc) from exc
        self._is_published = True

    def _failed(self, exc: OSError) -> ConfigError:
        reason = os.strerror(exc.errno or 0)
        return ConfigError(f"{self._root} cannot be written ({reason}); nothing was left there")
