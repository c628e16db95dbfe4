"""Chunk storage in a bucket of an object store that speaks S3.

Objects are `<prefix>/<chunk id>`: sealed chunks, named by digests of what is sealed. Beside them
is `<prefix>/owner`, a value derived from the node's root key. Two nodes with the same prefix would
delete each other's chunks, so each first checks this object. It also distinguishes a bucket that
was emptied or recreated from one that lacks a single chunk.

A put counts as done when the server has confirmed the object's SHA-256. If a server confirms none,
the object is read back.
"""

import secrets
import shutil
import threading
import time
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, FlexibleChecksumError

from node.chunks.places import S3Place
from node.chunks.s3_client import NoSuchObject, S3Client, away
from node.chunks.storage import Requests
from node.crypto.digests import sha256
from node.domain.ids import ChunkId
from node.domain.manifest import MAX_CHUNK_BYTES, MAX_SEALED_OVERHEAD
from node.errors import ChunkDamaged, ChunkNotFound, StoreAway, StoreDenied, StoreError, StoreFull

_OWNER = "owner"
_OWNER_BYTES = 64
_MOST_BYTES = MAX_CHUNK_BYTES + MAX_SEALED_OVERHEAD
_PIECE_BYTES = 256 * 1024
_GET_SECONDS, _GET_TRIES, _PUT_TRIES = 60.0, 3, 2
_LOOK_SECONDS = 10.0  # for which a look at the owner holds
_PAGE = 1000
_UNBOUNDED = 2**50  # a server does not report its free space


class S3ChunkStorage:
    """See `ChunkStorage`. What was put is durable at once: `sync` has nothing left to do."""

    def __init__(
        self,
        place: S3Place,
        owner: bytes,
        disk: Path,
        reserve_bytes: int,
        credentials_file: str = "",
    ) -> None:
        """Prepare; nothing is asked yet.

        Args:
            place: Where the chunks are.
            owner: Identifies this node's chunks; reveals no secret.
            disk: Where the database is: nothing is put when its free space is below the reserve.
            reserve_bytes: That reserve.
            credentials_file: See `node.chunks.s3_client`; empty for the environment or a role.

        Raises:
            ConfigError: no client can be made for it.
        """
        self._place = place
        self._owner = owner.hex().encode()
        self._disk = disk
        self._reserve_bytes = reserve_bytes
        self._client = S3Client(place, credentials_file)
        self._looking = threading.Lock()
        self._looked_at = -_LOOK_SECONDS

    def _call(self, operation: str, name: str = "", **arguments: Any) -> Any:
        if name:
            arguments["Key"] = self._place.prefix + name
        return self._client.call(operation, Bucket=self._place.bucket, **arguments)

    def put(self, chunk_id: ChunkId, sealed: bytes) -> None:
        """See `ChunkStorage.put`."""
        if not self.free_bytes():
            raise StoreFull("the disk is full up to the reserve; free space and try again")
        for tries_left in reversed(range(_PUT_TRIES)):
            if self._put(str(chunk_id), sealed):
                return
            if not tries_left:
                raise StoreError(f"the object store did not keep chunk {chunk_id.short()} as it is")

    def _put(self, name: str, content: bytes, **condition: str) -> bool:
        """Put an object; return whether the server confirms these very bytes."""
        sum_ = b64encode(sha256(content)).decode()
        answer = self._call("put_object", name, Body=content, ChecksumSHA256=sum_, **condition)
        confirmed = answer.get("ChecksumSHA256")
        return confirmed == sum_ if confirmed else self._get(name) == content

    def sync(self, chunk_ids: Iterable[ChunkId]) -> None:
        """See `ChunkStorage.sync`."""

    def get(self, chunk_id: ChunkId) -> bytes:
        """See `ChunkStorage.get`."""
        try:
            return self._get(str(chunk_id))
        except NoSuchObject as exc:
            self._check_owner()
            raise ChunkNotFound(f"chunk {chunk_id.short()} is not in the store") from exc

    def _get(self, name: str, most_bytes: int = _MOST_BYTES) -> bytes:
        error: StoreError | None = None
        for _ in range(_GET_TRIES):
            answer = self._call("get_object", name, ChecksumMode="ENABLED")
            if answer.get("ContentLength", 0) > most_bytes:
                answer["Body"].close()
                raise ChunkDamaged("there is more in the object store than any chunk has")
            try:
                return _read(answer["Body"], most_bytes)
            except FlexibleChecksumError as exc:
                error = ChunkDamaged("a chunk's bytes are not those that the object store sums up")
                error.__cause__ = exc
            except (BotoCoreError, OSError, TimeoutError) as exc:
                error = away(exc)
        raise error or StoreAway("the object store does not answer")

    def size(self, chunk_id: ChunkId) -> int | None:
        """See `ChunkStorage.size`."""
        try:
            return int(self._call("head_object", str(chunk_id))["ContentLength"])
        except NoSuchObject:
            self._check_owner()
            return None

    def delete(self, chunk_ids: Iterable[ChunkId]) -> None:
        """See `ChunkStorage.delete`."""
        left = iter(chunk_ids)
        while some := [{"Key": self._place.prefix + str(one)} for one in islice(left, _PAGE)]:
            answer = self._call("delete_objects", Delete={"Objects": some, "Quiet": True})
            wrong = [e for e in answer.get("Errors", []) if e.get("Code") != "NoSuchKey"]
            if wrong:
                raise StoreError(f"the object store did not delete {len(wrong)} chunks")

    def contents(self) -> Iterator[tuple[ChunkId, int]]:
        """See `ChunkStorage.contents`."""
        prefix, after = self._place.prefix, ""
        while True:
            answer = self._call(
                "list_objects_v2", Prefix=prefix, MaxKeys=_PAGE, StartAfter=prefix + after
            )
            found = answer.get("Contents", [])
            names = [str(one["Key"]).removeprefix(prefix) for one in found]
            for name, one in zip(names, found, strict=True):
                with suppress(ValueError):  # a foreign object, which is ignored
                    yield ChunkId.parse(name), int(one["Size"])
            if not answer.get("IsTruncated") or not names or max(names) <= after:
                return
            after = max(names)

    def ids(self) -> Iterator[ChunkId]:
        """See `ChunkStorage.ids`."""
        return (chunk_id for chunk_id, _ in self.contents())

    def free_bytes(self) -> int:
        """See `ChunkStorage.free_bytes`."""
        return _UNBOUNDED if shutil.disk_usage(self._disk).free > self._reserve_bytes else 0

    def use_reserve(self, reserve_bytes: int) -> None:
        """See `ChunkStorage.use_reserve`."""
        self._reserve_bytes = reserve_bytes

    def check(self) -> None:
        """See `ChunkStorage.check`."""
        self._looked_at = -_LOOK_SECONDS
        self._check_owner()

    def close(self) -> None:
        """See `ChunkStorage.close`."""
        self._client.close()

    def where(self) -> str:
        """See `ChunkStorage.where`."""
        return f"s3://{self._place.bucket}/{self._place.prefix.rstrip('/')}"

    def is_open(self) -> bool:
        """See `ChunkStorage.is_open`."""
        return self._place.is_open

    def requests(self) -> Mapping[tuple[str, str], Requests]:
        """See `ChunkStorage.requests`."""
        return self._client.requests()

    def folders(self) -> Sequence[Path]:
        """See `ChunkStorage.folders`."""
        return []

    def claim(self) -> None:
        """Claim the place for this node, durably; no change if it is this node's already.

        Raises:
            StoreDenied: it is another node's, or has chunks of an unknown owner.
            StoreError: it does not answer.
        """
        try:
            self._get(_OWNER, _OWNER_BYTES)
        except NoSuchObject:
            if next(self.contents(), None) is not None:
                said = f"{self.where()} has chunks of an unknown node; choose another prefix"
                raise StoreDenied(said) from None
            # The first node wins. On a server without conditional writes the last one wins, and the
            # other node notices it at its next check.
            with suppress(StoreError):
                self._put(_OWNER, self._owner, IfNoneMatch="*")
        self.check()

    def is_same_place(self, other: "S3ChunkStorage") -> bool:
        """Return whether another storage sees what is put here, whatever it calls the place."""
        name = f"probe-{secrets.token_hex(16)}"
        self._put(name, name.encode())
        try:
            return other._get(name, len(name)) == name.encode()
        except NoSuchObject:
            return False
        finally:
            self._call("delete_object", name)

    def _check_owner(self) -> None:
        """Check that the place is there and this node's, as of some seconds ago."""
        with self._looking:
            if time.monotonic() - self._looked_at < _LOOK_SECONDS:
                return
            try:
                owner = self._get(_OWNER, _OWNER_BYTES)
            except NoSuchObject as exc:
                raise StoreError(
                    f"{self.where()} has no `owner` object: it was emptied, or is the wrong place;"
                    " check [store] chunks in emix.toml"
                ) from exc
            if owner != self._owner:
                raise StoreDenied(
                    f"{self.where()} has another node's chunks; choose another prefix"
                )
            self._looked_at = time.monotonic()


def _read(body: Any, most_bytes: int) -> bytes:
    """Return what an answer's body has, in a bounded time."""
    until = time.monotonic() + _GET_SECONDS
    pieces, size = [], 0
    try:
        while piece := body.read(_PIECE_BYTES):
            pieces.append(piece)
            size += len(piece)
            if size > most_bytes:
                raise ChunkDamaged("an object in the object store is longer than any chunk")
            if time.monotonic() > until:
                raise TimeoutError
    finally:
        body.close()
    return b"".join(pieces)
