"""The contract on a real object store."""

import secrets
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from node.chunks.places import S3Place
from node.chunks.s3 import S3ChunkStorage
from node.chunks.storage import ChunkStorage
from node.domain.ids import ChunkId
from node.errors import StoreDenied, StoreError
from tests.node.chunks.contract import ChunkStorageContract, chunk
from tests.support.seaweed import BUCKET, Seaweed, seaweed

pytestmark = pytest.mark.slow
OWNER = b"\7" * 32


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    with seaweed(tmp_path_factory.mktemp("seaweed")) as running:
        yield running


class SeaweedHarness:
    def __init__(self, server: Seaweed, disk: Path) -> None:
        self._place = S3Place.parse(server.text(secrets.token_hex(8)))
        self._server, self._disk = server, disk
        self._client = server.client
        self._opened: list[S3ChunkStorage] = []
        self.open().claim()

    def open(self, owner: bytes = OWNER) -> S3ChunkStorage:
        credentials = str(self._server.credentials)
        self._opened.append(S3ChunkStorage(self._place, owner, self._disk, 0, credentials))
        return self._opened[-1]

    def close(self) -> None:
        for storage in self._opened:
            storage.close()

    def replace(self, chunk_id: ChunkId, content: bytes | None) -> None:
        where = {"Bucket": BUCKET, "Key": self._place.prefix + str(chunk_id)}
        if content is None:
            self._client.call("delete_object", **where)
        else:
            self._client.call("put_object", Body=content, **where)

    def tear(self, chunk_id: ChunkId, content: bytes) -> None:
        """An object is there whole or not at all; what else is begun is not seen."""
        where = {"Bucket": BUCKET, "Key": self._place.prefix + str(chunk_id)}
        begun = self._client.call("create_multipart_upload", **where)
        part = {
            "UploadId": begun["UploadId"],
            "PartNumber": 1,
            "Body": content[: len(content) // 2],
        }
        self._client.call("upload_part", **where, **part)

    def fill(self, storage: ChunkStorage) -> None:
        storage.use_reserve(2**60)

    def settle(self) -> None:
        """Its listings do not lag."""


@pytest.fixture
def harness(server: Seaweed, tmp_path: Path) -> Iterator[SeaweedHarness]:
    with closing(SeaweedHarness(server, tmp_path)) as harness:
        yield harness


class TestS3ChunkStorage(ChunkStorageContract):
    examples = 8


def test_place_of_another_node_is_left_alone(harness: SeaweedHarness) -> None:
    name, content = chunk(b"one")
    harness.open().put(name, content)
    other = harness.open(owner=b"\0" * 32)
    for use in (other.claim, other.check, partial(other.size, ChunkId(bytes(32)))):
        with pytest.raises(StoreDenied, match="has another node's chunks"):
            use()
    harness.open().claim()
    assert harness.open().get(name) == content


def test_emptied_place_has_lost_nothing(harness: SeaweedHarness, server: Seaweed) -> None:
    name, content = chunk(b"one")
    storage = harness.open()
    storage.put(name, content)
    harness.replace(name, None)
    key = harness._place.prefix + "owner"
    server.client.call("delete_object", Bucket=BUCKET, Key=key)
    for use in (storage.check, partial(storage.size, name), partial(storage.get, name)):
        with pytest.raises(StoreError, match="was emptied") as caught:
            use()
        assert type(caught.value) is StoreError


def test_bucket_that_is_not_there_is_no_lost_chunk(server: Seaweed, tmp_path: Path) -> None:
    place = S3Place.parse(server.text("x").replace(f"s3://{BUCKET}", "s3://another-bucket"))
    name, content = chunk(b"one")
    with closing(S3ChunkStorage(place, OWNER, tmp_path, 0, str(server.credentials))) as storage:
        for use in (
            partial(storage.put, name, content),
            partial(storage.size, name),
            partial(storage.get, name),
            lambda: list(storage.contents()),
            storage.claim,
        ):
            with pytest.raises(StoreError, match="bucket for chunks does not exist"):
                use()


def test_bucket_has_ciphertext_under_meaningless_names_only(
    harness: SeaweedHarness, server: Seaweed
) -> None:
    name, content = chunk(b"sealed")
    harness.open().put(name, content)
    found = server.client.call("list_objects_v2", Bucket=BUCKET, Prefix=harness._place.prefix)
    names = [one["Key"].removeprefix(harness._place.prefix) for one in found["Contents"]]
    assert sorted(names) == sorted([str(name), "owner"])
