"""Envelopes: beside its chunks, each closed package has one sealed file.

It holds what is needed to rebuild the database: the wrapped data key, the manifest document and,
for a received package, the delivery and this node's findings. It is written only when every chunk
has been opened and checked (or was just sealed here), and synced before the database commits.

```
4  magic "emxe"
8  epoch, little endian: which key opens it
   a small sealed object: origin, then length-prefixed parts
```
"""

import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from node.crypto.keyring import Secrets
from node.crypto.sealing import OpenFailed, SealingKeys, open_small, seal_small
from node.domain.ids import DIGEST_BYTES, FacilityId, PackageId
from node.errors import KeysError, StoreError
from node.system import durable_files

_HEADER = struct.Struct("<4sQ")
_MAGIC = b"emxe"
_KIND = "emix/envelope/v1"
_LENGTHS = struct.Struct("<4Q")
ORIGIN_BYTES = 8
"""How much of the origin's id stands in an envelope's name."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What one envelope holds; `delivery` is empty for a package sealed here.

    `findings` are the verdicts of when it arrived: after a repair, what was released since waits
    again.
    """

    package_id: PackageId
    origin: FacilityId
    epoch: int
    wrapped_key: bytes
    manifest: bytes
    delivery: bytes
    findings: bytes = b""


class Envelopes:
    """The folder of envelopes. Blocking: call it on worker threads."""

    def __init__(self, root: Path, secrets: Secrets) -> None:
        self._root = root
        self._secrets = secrets
        durable_files.make_directory(root)
        durable_files.remove_temporaries(root)

    def name(self, origin: FacilityId, package_id: PackageId) -> str:
        """Return an envelope's file name; two facilities' packages never share one."""
        return f"{package_id}-{origin.digest[:ORIGIN_BYTES].hex()}"

    def named(self, name: str) -> tuple[bytes, bytes] | None:
        """Return what a file name states: package id, origin's first bytes; None: it is foreign."""
        package_id, _, origin = name.partition("-")
        try:
            stated = PackageId.parse(package_id).digest, bytes.fromhex(origin)
        except ValueError:
            return None
        return stated if name == f"{package_id.lower()}-{stated[1].hex()}" else None

    def _path(self, origin: FacilityId, package_id: PackageId) -> Path:
        return self.path(self.name(origin, package_id))

    def put(self, envelope: Envelope) -> None:
        """Write or replace an envelope; durable once this returns."""
        self.put_all([envelope])

    def put_all(self, envelopes: Iterable[Envelope]) -> None:
        """Write or replace envelopes; durable once this returns."""
        for envelope in envelopes:
            durable_files.write_synced(
                self._path(envelope.origin, envelope.package_id), self._seal(envelope)
            )
        durable_files.sync_directories([self._root])

    def _seal(self, envelope: Envelope) -> bytes:
        parts = (envelope.wrapped_key, envelope.manifest, envelope.delivery, envelope.findings)
        body = envelope.origin.digest + _LENGTHS.pack(*map(len, parts)) + b"".join(parts)
        sealed = seal_small(
            self._secrets.epoch_keys(envelope.epoch),
            _KIND,
            _context(envelope.epoch, envelope.package_id),
            body,
        )
        return _HEADER.pack(_MAGIC, envelope.epoch) + sealed

    def remove(self, origin: FacilityId, package_id: PackageId) -> None:
        """Remove an envelope durably; one that is not there is no error."""
        with durable_files.translated():
            self._path(origin, package_id).unlink(missing_ok=True)
        durable_files.sync_directories([self._root])

    def read(self, path: Path) -> Envelope:
        """Return the envelope in a file of this folder.

        Raises:
            StoreDenied: this user may not read it.
            StoreError: it does not open; the message names the file.
        """
        try:
            with _denied_is_no_damage():
                data = path.read_bytes()
            magic, epoch = _HEADER.unpack_from(data)
            if magic != _MAGIC:
                raise StoreError(f"{path.name} is not an envelope")
            package_id = PackageId.parse(path.name.partition("-")[0])
            body = open_small(
                self._epoch_keys(path, epoch),
                _KIND,
                _context(epoch, package_id),
                data[_HEADER.size :],
            )
            lengths = _LENGTHS.unpack_from(body, DIGEST_BYTES)
            rest = body[DIGEST_BYTES + _LENGTHS.size :]
            wrapped, manifest, delivery, findings = _split(rest, lengths)
        except (OSError, OpenFailed, ValueError, struct.error) as exc:
            raise StoreError(f"envelope {path.name} cannot be decrypted") from exc
        origin = FacilityId(body[:DIGEST_BYTES])
        return Envelope(package_id, origin, epoch, wrapped, manifest, delivery, findings)

    def _epoch_keys(self, path: Path, epoch: int) -> SealingKeys:
        try:
            return self._secrets.epoch_keys(epoch)
        except KeysError as exc:
            raise StoreError(f"envelope {path.name} cannot be decrypted: {exc}") from exc

    def epoch_of(self, path: Path) -> int:
        """Return which epoch's key opens the envelope in a file; `StoreError` if it is none."""
        try:
            with _denied_is_no_damage(), path.open("rb") as handle:
                magic, epoch = _HEADER.unpack(handle.read(_HEADER.size))
        except (OSError, struct.error) as exc:
            raise StoreError(f"envelope {path.name} cannot be read") from exc
        if magic != _MAGIC:
            raise StoreError(f"{path.name} is not an envelope")
        return int(epoch)

    def paths(self) -> Iterator[Path]:
        """Yield the envelope files."""
        return (self.path(name) for name in self.names())

    def names(self) -> list[str]:
        """Return the names of the envelope files, in order."""
        with durable_files.translated():  # an unreadable folder is no empty one
            found = [entry.name for entry in os.scandir(self._root)]
        return sorted(name for name in found if not name.startswith("."))

    def path(self, name: str) -> Path:
        """Return the file of an envelope by its name."""
        return self._root / name


@contextmanager
def _denied_is_no_damage() -> Iterator[None]:
    try:
        yield
    except PermissionError:
        with durable_files.translated():
            raise


def _split(data: bytes, lengths: tuple[int, ...]) -> list[bytes]:
    if sum(lengths) != len(data):
        raise ValueError("lengths do not add up")
    parts, start = [], 0
    for length in lengths:
        parts.append(data[start : start + length])
        start += length
    return parts


def _context(epoch: int, package_id: PackageId) -> bytes:
    return struct.pack("<Q", epoch) + package_id.digest
