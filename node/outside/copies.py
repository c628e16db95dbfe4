"""Writes, verifies and reads backups on a disk, without a key or a node.

A backup has the files of a home, as encrypted as there, except the host key. The `inventory` is
written last, so an interrupted backup has none:

```
emix backup 1
<BLAKE3 digest, hex> <bytes> <name>     a line for each file, by name
<BLAKE3 digest of all lines above> end
```
"""

import errno
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, Self

from node.crypto.digests import Hasher, digest
from node.domain.ids import ChunkId
from node.errors import ConfigError, StoreError
from node.system import safe_paths
from node.system.durable_files import sync_tree

INVENTORY = "inventory"
DATABASE, KEYRING, CONFIG = "metadata.db", "keyring", "emix.toml"
_HEADER = "emix backup 1"
_NAME = re.compile(
    rf"{re.escape(DATABASE)}|{KEYRING}|{re.escape(CONFIG)}"
    r"|chunks/[a-z2-7]{2}/[a-z2-7]{52}|envelopes/[a-z2-7]{52}-[0-9a-f]{16}"
)
_LINE = re.compile(r"([0-9a-f]{64}) (0|[1-9][0-9]{0,18}) (\S+)")
_END = re.compile(r"([0-9a-f]{64}) end")
_NEEDED = (DATABASE, KEYRING, CONFIG)
_MOST_BYTES = 1 << 32
"""Of an inventory: some 25 million files."""

_PIECE_BYTES = 1 << 20
_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""Errors of file systems without hard links, and of links across file systems."""


@dataclass(frozen=True)
class Listed:
    """A file of a backup as its inventory has it."""

    size_bytes: int
    digest: bytes


@dataclass(frozen=True)
class Problem:
    """A file of a backup that is missing or damaged, and how."""

    name: str
    what: str


def is_name(name: str) -> bool:
    """Return whether a backup has files of that name."""
    return _NAME.fullmatch(name) is not None


def encode_inventory(files: Mapping[str, Listed]) -> bytes:
    """Return the inventory of these files."""
    lines = [_HEADER]
    lines += [f"{f.digest.hex()} {f.size_bytes} {name}" for name, f in sorted(files.items())]
    text = "".join(f"{line}\n" for line in lines).encode()
    return text + f"{digest(text).hex()} end\n".encode()


def decode_inventory(data: bytes) -> Mapping[str, Listed]:
    """Return the files that an inventory lists; `ValueError` if it is not one, or not whole."""
    body, _, last = data.removesuffix(b"\n").rpartition(b"\n")
    body += b"\n"
    ending = _END.fullmatch(last.decode("ascii", "replace"))
    if ending is None or bytes.fromhex(ending[1]) != digest(body):
        raise ValueError("it is not whole")
    first, *lines = body.decode("ascii", "replace").splitlines()
    if first != _HEADER:
        raise ValueError("it has another format version")
    files = {}
    for line in lines:
        found = _LINE.fullmatch(line)
        if found is None or not is_name(found[3]) or found[3] in files:
            raise ValueError("it lists files that no backup contains")
        files[found[3]] = Listed(int(found[2]), bytes.fromhex(found[1]))
    return MappingProxyType(files)


def read_inventory(directory: Path) -> Mapping[str, Listed]:
    """Return the inventory of the backup in a folder.

    Raises:
        ConfigError: there is no whole backup; the message says what is missing.
    """
    path = directory / INVENTORY
    try:
        files = decode_inventory(safe_paths.read_file(path, _MOST_BYTES))
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise ConfigError(f"{directory} {_why_none(directory)}") from exc
    except OSError as exc:
        why = safe_paths.denial(path, os.R_OK) or exc.strerror
        raise ConfigError(f"{path} cannot be read: {why}") from exc
    except ValueError as exc:
        raise ConfigError(f"{path} is damaged: {exc}") from exc
    if missing := [name for name in _NEEDED if name not in files]:
        raise ConfigError(f"{directory} is not a complete backup: it lacks {', '.join(missing)}")
    return files


def _why_none(directory: Path) -> str:
    """Return why a folder without an inventory is no backup."""
    if not directory.exists():
        return "is not there; is its disk mounted?"
    if not directory.is_dir():
        return "is not a folder; name the folder that `emix backup` wrote"
    with suppress(OSError):
        if not {path.name for path in directory.iterdir()} - {safe_paths.LOST_AND_FOUND}:
            return "is empty; is its disk mounted?"
    return (
        f"is not a complete backup: it has no {INVENTORY}, which is written last. If it is a copy"
        " of a home made without `emix backup`, use it directly, with --home"
    )


def find_missing(directory: Path, files: Mapping[str, Listed]) -> list[Problem]:
    """Return those files of a backup that are not there, or have another size; none is read."""
    problems = []
    for name, listed in files.items():
        try:
            size = (directory / name).lstat().st_size
        except FileNotFoundError:
            problems.append(Problem(name, "is missing"))
        except OSError as exc:
            problems.append(Problem(name, f"cannot be accessed ({os.strerror(exc.errno or 0)})"))
        else:
            if size != listed.size_bytes:
                problems.append(Problem(name, f"has {size} bytes instead of {listed.size_bytes}"))
    return problems


def verify(
    directory: Path, files: Mapping[str, Listed], report: Callable[[int], None]
) -> Iterator[Problem]:
    """Read every file of a backup; yield the missing and damaged ones.

    Args:
        directory: The folder of the backup.
        files: Its inventory.
        report: Called with how many bytes were read so far.
    """
    missing = find_missing(directory, files)
    yield from missing
    done = 0
    for name in files.keys() - {problem.name for problem in missing}:
        try:
            with open_listed(directory, name) as source:
                taken = _digest(source)
        except (OSError, ConfigError) as exc:
            why = os.strerror(exc.errno or 0) if isinstance(exc, OSError) else str(exc)
            yield Problem(name, f"cannot be read ({why})")
        else:
            if taken != files[name].digest:
                yield Problem(name, "is damaged")
            elif was_damaged(name, taken):
                yield Problem(name, "was damaged already when the backup was made")
        done += files[name].size_bytes
        report(done)


def was_damaged(name: str, taken: bytes) -> bool:
    """Return whether a file is a chunk whose digest differs from its name."""
    kind, _, rest = name.partition("/")
    return kind == "chunks" and ChunkId.parse(rest.rpartition("/")[2]).digest != taken


@contextmanager
def open_listed(directory: Path, name: str) -> Iterator[BinaryIO]:
    """Open a file of a backup for the time of the block, which must be a plain one."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(directory / name, flags), "rb") as source:
        safe_paths.check_plain(source.fileno(), directory / name)
        yield source


def _digest(source: BinaryIO) -> bytes:
    hasher = Hasher()
    while piece := source.read(_PIECE_BYTES):
        hasher.update(piece)
    return hasher.digest()


@dataclass(frozen=True)
class Base:
    """An earlier backup.

    Attributes:
        directory: Where it really is.
        files: Its inventory.
        chunks: Those of its chunks that are there, and were whole when it was made.
    """

    directory: Path
    files: Mapping[str, Listed]
    chunks: Sequence[ChunkId]


def read_base(directory: Path) -> Base:
    """Return an earlier backup; sizes are checked, contents are not read.

    Raises:
        ConfigError: the backup is incomplete, or other users could replace its files.
    """
    files = read_inventory(directory)
    real = safe_paths.real_folder(directory, is_ours=True)
    missing = {problem.name for problem in find_missing(real, files)}
    chunks = [
        ChunkId(listed.digest)
        for name, listed in files.items()
        if name.startswith("chunks/")
        and name not in missing
        and not was_damaged(name, listed.digest)
    ]
    return Base(real, files, chunks)


@dataclass
class BackupFolder:
    """A backup that is being written. Use it in a `with` block; if unfinished, nothing is left.

    Attributes:
        directory: An empty folder, or a new one in a folder that exists.
        home: The node's home, if it can be seen: a backup must not be inside it.
        is_elsewhere: Whether a disk other than the system's and the home's must be mounted there.
        damaged: Chunks that were damaged in the node already.
        base: An earlier backup, whose chunks are linked instead of written.
        linked: How many files are links to those of `base`.
    """

    directory: Path
    home: Path | None = None
    is_elsewhere: bool = False
    damaged: list[str] = field(default_factory=list)
    files: dict[str, Listed] = field(default_factory=dict)
    base: "Base | None" = None
    linked: int = 0

    def __post_init__(self) -> None:
        self._closing = ExitStack()
        self._is_finished = self._is_made = False
        self._name = ""
        self._handle: BinaryIO | None = None
        self._hasher = Hasher()
        self._size = 0
        self._fd, self._real = -1, self.directory

    def __enter__(self) -> Self:
        """Make the folder.

        Raises:
            ConfigError: it cannot be made, is not empty, or is not where a backup may be.
        """
        self._is_made = not os.path.lexists(self.directory)
        with self._closing:
            self._check_place()
            opened = safe_paths.folder(self.directory, make=True, is_ours=True)
            with self._named_errors():
                self._fd, self._real = self._closing.enter_context(opened)
            if safe_paths.names(self._fd):
                raise ConfigError(f"{self.directory} is not empty; choose a new folder")
            self._closing = self._closing.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with self._closing:
            if self._handle is not None:
                self._handle.close()
            if self._is_finished:
                return
            for name in ("chunks", "envelopes"):
                shutil.rmtree(name, ignore_errors=True, dir_fd=self._fd)
            for name in (*_NEEDED, INVENTORY):
                with suppress(OSError):
                    os.unlink(name, dir_fd=self._fd)
            if self._is_made:
                with suppress(OSError):
                    self._real.rmdir()

    def _check_place(self) -> None:
        there = self.directory if self.directory.exists() else self.directory.parent
        if self.home is not None and there.resolve().is_relative_to(self.home.resolve()):
            raise ConfigError("the backup folder must not be inside the home; choose another")
        if not self.is_elsewhere:
            return
        disks = {path.stat().st_dev for path in (Path("/"), self.home) if path is not None}
        with self._named_errors():
            if there.stat().st_dev in disks:
                raise ConfigError(
                    f"nothing is mounted at {self.directory}: it is on the disk of the system or"
                    " of the home. Mount the disk for backups, or leave --mounted out"
                )

    def check_room(self, total_bytes: int, files: int) -> None:
        """Check that there is room for so much, with a reserve left; `StoreFull` if not."""
        safe_paths.check_room(self._fd, total_bytes, files, self.directory)

    def add(self, name: str, piece: bytes) -> None:
        """Write a piece of a file: of the next one, if it has a name.

        Raises:
            StoreError: the name is not one of a backup's files, or the file was written already.
            ConfigError: it cannot be written.
        """
        with self._named_errors():
            if name:
                self.end_file()
                self._begin_file(name)
            if self._handle is None:
                raise StoreError("a backup begins with a file's name")
            self._handle.write(piece)
            self._hasher.update(piece)
            self._size += len(piece)

    def keep(self, chunk_id: ChunkId) -> None:
        """Add a chunk of `base`: as a hard link, or as a copy if that is not possible.

        Raises:
            StoreError: the earlier backup has no such chunk.
            ConfigError: it cannot be read, or written.
        """
        self.end_file()
        name = f"chunks/{str(chunk_id)[:2]}/{chunk_id}"
        if self.base is None or name not in self.base.files or name in self.files:
            raise StoreError("the node refers to a chunk that the earlier backup lacks")
        with self._named_errors():
            self._make_folders(name)
            there = self.base.directory / name
            if not stat.S_ISREG(there.lstat().st_mode):
                raise StoreError(f"{there} is not a regular file, so it is not part of a backup")
            try:
                os.link(there, name, dst_dir_fd=self._fd, follow_symlinks=False)
            except OSError as exc:
                if exc.errno not in _NO_LINKS:
                    raise
            else:
                self.files[name] = self.base.files[name]
                self.linked += 1
                return
        with open_listed(self.base.directory, name) as source:
            self.add(name, b"")
            while piece := source.read(_PIECE_BYTES):
                self.add("", piece)
        self.end_file()

    def _make_folders(self, name: str) -> None:
        above = ""
        for part in name.split("/")[:-1]:
            above = f"{above}{part}/"
            with suppress(FileExistsError):
                os.mkdir(above, 0o700, dir_fd=self._fd)

    def _begin_file(self, name: str) -> None:
        if not is_name(name) or name in self.files:
            raise StoreError("the node sent a file that does not belong in a backup")
        self._make_folders(name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._handle = os.fdopen(os.open(name, flags, 0o600, dir_fd=self._fd), "wb")
        self._name, self._hasher, self._size = name, Hasher(), 0

    def end_file(self) -> None:
        """Note the file that was written last, if it was not."""
        if self._handle is None:
            return
        self._handle.close()
        self._handle = None
        taken = self._hasher.digest()
        self.files[self._name] = Listed(self._size, taken)
        if was_damaged(self._name, taken):
            self.damaged.append(self._name)

    def finish(self) -> None:
        """Write the inventory; the backup is durable once this returns.

        Raises:
            ConfigError: it cannot be written.
        """
        with self._named_errors():
            self.end_file()
            # A home has both folders, an empty store's too.
            for name in ("chunks", "envelopes"):
                with suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=self._fd)
            sync_tree(self._real)
            safe_paths.write_file(self._real / INVENTORY, encode_inventory(self.files), is_new=True)
        self._is_finished = True

    @property
    def total_bytes(self) -> int:
        """Of the files so far."""
        return sum(listed.size_bytes for listed in self.files.values())

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise ConfigError(
                f"{self.directory} cannot be made or written ({os.strerror(exc.errno or 0)});"
                " nothing of the backup was left there"
            ) from exc
