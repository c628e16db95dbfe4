"""Chunks on an object store that misbehaves: nothing is lost, and nothing waits for ever."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from node.chunks import s3, s3_client
from node.chunks.places import S3Place
from node.chunks.s3 import S3ChunkStorage
from node.chunks.storage import ChunkStorage
from node.domain.ids import ChunkId
from node.errors import (
    ChunkDamaged,
    ChunkNotFound,
    ConfigError,
    StoreAway,
    StoreDenied,
    StoreError,
    StoreFull,
)
from tests.node.chunks.contract import ChunkStorageContract, chunk
from tests.support.s3_server import ObjectStore, object_store
from tests.support.seaweed import write_credentials

OWNER = b"\7" * 32
NAME, CONTENT = chunk(b"sealed" * 1000)
KEY = f"node/{NAME}"


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    with object_store() as store:
        yield store


@pytest.fixture
def store(server: ObjectStore) -> ObjectStore:
    endpoint = server.endpoint
    server.__init__()  # type: ignore[misc]  # as new, on the same port
    server.endpoint = endpoint
    return server


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    return write_credentials(tmp_path / "credentials", "first", "secret")


@pytest.fixture
def bucket(store: ObjectStore, credentials: Path, tmp_path: Path) -> Iterator[S3ChunkStorage]:
    place = S3Place.parse(store.text("node"))
    storage = S3ChunkStorage(place, OWNER, tmp_path, 0, str(credentials))
    storage.claim()
    yield storage
    storage.close()


@pytest.fixture
def storage(bucket: S3ChunkStorage) -> S3ChunkStorage:
    return bucket


class Harness:
    def __init__(self, store: ObjectStore, storage: S3ChunkStorage) -> None:
        self._store, self._storage = store, storage

    def open(self) -> ChunkStorage:
        return self._storage

    def replace(self, chunk_id: ChunkId, content: bytes | None) -> None:
        self._store.objects.pop(f"node/{chunk_id}", None)
        if content is not None:
            self._store.objects[f"node/{chunk_id}"] = content

    def tear(self, chunk_id: ChunkId, content: bytes) -> None:
        """An object is there whole or not at all."""

    def fill(self, storage: ChunkStorage) -> None:
        self._store.answers = lambda method, _: (507, "Full") if method == "PUT" else None

    def settle(self) -> None:
        """Its listings do not lag, unless they are told to."""


@pytest.fixture
def harness(store: ObjectStore, bucket: S3ChunkStorage) -> Harness:
    return Harness(store, bucket)


class TestS3ChunkStorage(ChunkStorageContract):
    examples = 5


def once(failure: Callable[[], tuple[int, str]]) -> Callable[[str, str], tuple[int, str] | None]:
    """Fail the first request."""
    left = [1]
    return lambda _, __: failure() if left and left.pop() else None


def cut() -> tuple[int, str]:
    raise ConnectionError


def test_server_that_fails_once_is_asked_again(store: ObjectStore, storage: S3ChunkStorage) -> None:
    for failure in (lambda: (503, "SlowDown"), lambda: (500, "InternalError"), cut):
        store.answers = once(failure)
        storage.put(NAME, CONTENT)
        store.answers = once(failure)
        assert storage.get(NAME) == CONTENT


def test_lost_acknowledgement_is_asked_for_again(
    store: ObjectStore, storage: S3ChunkStorage
) -> None:
    def keep(content: bytes) -> bytes:
        store.keeps = lambda content: content
        store.objects[KEY] = content
        raise ConnectionError

    store.keeps = keep
    storage.put(NAME, CONTENT)
    assert store.objects[KEY] == CONTENT
    assert store.requests.count(("PUT", KEY)) == 2


@pytest.mark.parametrize("confirms", [True, False])
def test_what_the_server_kept_otherwise_is_not_acknowledged(
    store: ObjectStore, storage: S3ChunkStorage, confirms: bool
) -> None:
    store.confirms = confirms
    store.keeps = lambda content: content[:-1] + b"?"
    with pytest.raises(StoreError, match="did not keep chunk"):
        storage.put(NAME, CONTENT)


def test_server_that_confirms_nothing_is_read_from(
    store: ObjectStore, storage: S3ChunkStorage
) -> None:
    store.confirms = False
    storage.put(NAME, CONTENT)
    assert store.requests[-1] == ("GET", KEY)


def test_bytes_that_change_on_their_way_once_are_fetched_again(
    store: ObjectStore, storage: S3ChunkStorage
) -> None:
    storage.put(NAME, CONTENT)
    left = [1]
    store.alters = lambda content: bytes(len(content)) if left and left.pop() else content
    assert storage.get(NAME) == CONTENT


def test_bytes_that_change_each_time_are_damage(
    store: ObjectStore, storage: S3ChunkStorage
) -> None:
    storage.put(NAME, CONTENT)
    store.alters = lambda content: bytes(len(content))
    with pytest.raises(ChunkDamaged):
        storage.get(NAME)


def test_more_than_any_chunk_is_not_read(store: ObjectStore, storage: S3ChunkStorage) -> None:
    store.objects[KEY] = bytes(s3._MOST_BYTES + 1)
    with pytest.raises(ChunkDamaged, match="more"):
        storage.get(NAME)


def test_server_that_fails_always_is_away_and_nothing_is_lost(
    store: ObjectStore, storage: S3ChunkStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.put(NAME, CONTENT)
    monkeypatch.setattr(time, "sleep", lambda _: None)  # botocore's pauses
    for failure in (lambda: (503, "SlowDown"), cut):
        store.answers = partial(_always, failure)
        for use in _uses(storage):
            before = len(store.requests)
            with pytest.raises(StoreAway, match="object store"):
                use()
            assert len(store.requests) - before <= s3_client.ATTEMPTS * s3._GET_TRIES


def _always(failure: Callable[[], tuple[int, str]], _: str, __: str) -> tuple[int, str]:
    return failure()


def _uses(storage: ChunkStorage) -> list[Callable[[], object]]:
    return [
        partial(storage.put, NAME, CONTENT),
        partial(storage.get, NAME),
        partial(storage.size, NAME),
        partial(storage.delete, [NAME]),
        lambda: list(storage.contents()),
        storage.check,
    ]


def test_server_that_does_not_answer_is_given_up(
    store: ObjectStore, credentials: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client, "READ_SECONDS", 0.2)
    monkeypatch.setattr(s3_client, "ATTEMPTS", 2)
    storage = S3ChunkStorage(
        S3Place.parse(store.text("node")), OWNER, tmp_path, 0, str(credentials)
    )
    may_go = threading.Event()
    store.answers = lambda _, __: (500, "Late") if may_go.wait(20) else None
    try:
        with pytest.raises(StoreAway, match="ReadTimeoutError"):
            storage.size(NAME)
    finally:
        may_go.set()
        storage.close()


def test_body_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    class Drip:
        closed = False

        def read(self, _: int) -> bytes:
            return b"x"

        def close(self) -> None:
            self.closed = True

    monkeypatch.setattr(s3, "_GET_SECONDS", 0.05)
    drip = Drip()
    with pytest.raises(TimeoutError):
        s3._read(drip, 2**40)
    assert drip.closed


def test_listing_that_lags_loses_nothing_and_many_pages_are_listed(
    store: ObjectStore, storage: S3ChunkStorage
) -> None:
    names = [chunk(n.to_bytes(2))[0] for n in range(2100)]
    store.objects |= {f"node/{name}": b"ab" for name in names}
    store.objects |= {"node/zzz": b"", "node/other/file": b""}
    assert dict(storage.contents()) == dict.fromkeys(names, 2)
    store.lag = {f"node/{names[0]}"}
    assert len(list(storage.contents())) == 2099
    assert storage.size(names[0]) == 2
    storage.delete(names)
    assert set(store.objects) == {"node/owner", "node/zzz", "node/other/file"}


def test_credentials_that_end_are_read_again_without_a_restart(
    store: ObjectStore,
    storage: S3ChunkStorage,
    credentials: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    storage.put(NAME, CONTENT)
    store.key_ids = {"second"}
    write_credentials(credentials, "second", "secret")
    assert storage.get(NAME) == CONTENT
    # They end, and are replaced while the call waits.
    store.key_ids = {"third"}
    monkeypatch.setattr(time, "sleep", lambda _: write_credentials(credentials, "third", "secret"))
    assert storage.get(NAME) == CONTENT


def test_credentials_that_have_ended_are_told_and_nothing_is_lost(
    store: ObjectStore, storage: S3ChunkStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    store.key_ids = set()
    for use in _uses(storage):
        with pytest.raises(StoreDenied, match="refuses this node"):
            use()


@pytest.mark.parametrize(
    ("text", "mode", "expected"),
    [
        ("[default]\naws_access_key_id = a\naws_secret_access_key = b\n", 0o640, "others can read"),
        ("[other]\naws_access_key_id = a\n", 0o600, "must hold"),
        ("aws_secret_access_key = hidden", 0o600, "must hold"),
        (None, 0o600, "cannot be read"),
    ],
)
def test_credentials_are_one_users_and_never_shown(
    tmp_path: Path, text: str | None, mode: int, expected: str
) -> None:
    path = tmp_path / "credentials"
    if text is not None:
        path.write_text(text)
        path.chmod(mode)
    with pytest.raises(ConfigError, match=expected) as caught:
        s3_client.read_credentials(path)
    assert "hidden" not in str(caught.value)


def test_credentials_come_from_the_environment_and_from_no_users_settings(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".aws").mkdir()
    made = tmp_path / "made"
    text = f"[default]\ncredential_process = touch {made}\n"
    (tmp_path / ".aws" / "config").write_text(text)
    write_credentials(tmp_path / ".aws" / "credentials", "first", "secret")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    place = S3Place.parse(store.text("node"))
    with closing(S3ChunkStorage(place, OWNER, tmp_path, 0)) as storage:
        with pytest.raises(StoreDenied, match="no credentials"):
            storage.claim()
    assert not made.exists()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "first")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with closing(S3ChunkStorage(place, OWNER, tmp_path, 0)) as storage:
        storage.claim()
    assert store.objects["node/owner"] == OWNER.hex().encode()


def test_place_with_unknown_chunks_or_another_owner_is_not_taken(
    store: ObjectStore, credentials: Path, tmp_path: Path
) -> None:
    place = S3Place.parse(store.text("node"))

    def claim(owner: bytes) -> None:
        with closing(S3ChunkStorage(place, owner, tmp_path, 0, str(credentials))) as storage:
            storage.claim()

    store.objects[KEY] = CONTENT
    with pytest.raises(StoreDenied, match="of an unknown node"):
        claim(OWNER)
    store.objects.clear()
    claim(OWNER)
    with pytest.raises(StoreDenied, match="another node's"):
        claim(bytes(32))


def test_requests_are_counted_by_operation_and_outcome(storage: S3ChunkStorage) -> None:
    storage.put(NAME, CONTENT)
    assert storage.get(NAME) == CONTENT
    assert storage.size(ChunkId(bytes(32))) is None
    counted = {kind: made.count for kind, made in storage.requests().items()}
    assert counted["put_object", "ok"] >= 1
    assert counted["get_object", "ok"] >= 1
    assert counted["head_object", "not there"] == 1
    assert all(made.seconds > 0 for made in storage.requests().values())


def test_full_disk_beside_the_bucket_takes_nothing_more(storage: S3ChunkStorage) -> None:
    storage.use_reserve(2**60)
    assert storage.free_bytes() == 0
    with pytest.raises(StoreFull):
        storage.put(NAME, CONTENT)
    with pytest.raises(ChunkNotFound):
        storage.get(NAME)


@pytest.mark.parametrize(
    "text",
    [
        "s3://b/p",
        "s3://bucket",
        "s3://bucket/",
        "s3://bucket/../p",
        "s3://user:secret@bucket/p",
        "s3://bucket/p#x",
        "s3://bucket/p?endpoint=ftp://host",
        "s3://bucket/p?endpoint=https://user@host",
        "s3://bucket/p?endpoint=https://host/path",
        "s3://bucket/p?endpoint=https://host:99999",
        "s3://bucket/p?region=x&region=y",
        "s3://bucket/p?secret=x",
        "https://bucket/p",
        "/srv/chunks",
    ],
)
def test_odd_places_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a place such as s3:"):
        S3Place.parse(text)


def test_place_is_read_as_it_is_written() -> None:
    place = S3Place.parse("s3://bucket/some/prefix?endpoint=http://10.1.2.3:9000&region=eu-west-1")
    assert place == S3Place("bucket", "some/prefix/", "http://10.1.2.3:9000", "eu-west-1")
    assert place.is_open
    assert not S3Place.parse("s3://bucket/p?endpoint=http://127.0.0.1:9000").is_open
    assert not S3Place.parse("s3://bucket/p").is_open
