"""Homes whose chunks are in an object store: made, opened, refused."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from node.app.buckets import claim_place
from node.app.config import Config, load_config
from node.app.home import Home, NewNode, make_home, unlock
from node.app.moving_chunks import move_chunks, moving_finding
from node.app.opening import open_home_store
from node.cli.main import cli
from node.errors import ConfigError, StoreDenied, StoreError
from node.outside.copies import BackupFolder
from node.store.maintenance import Maintenance
from tests.node.chunks.contract import chunk
from tests.support.backups import make_node, write_context
from tests.support.s3_server import ObjectStore, object_store
from tests.support.seaweed import write_credentials

NAME, CONTENT = chunk(b"sealed")


@pytest.fixture
def store() -> Iterator[ObjectStore]:
    with object_store() as store:
        yield store


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    return write_credentials(tmp_path / "credentials", "first", "secret")


def make(folder: Path, store: ObjectStore, credentials: Path) -> Home:
    home = Home(folder / "home")
    new = NewNode(
        "Clinic", folder / "kit", None, "127.0.0.1:0", "127.0.0.1:0", store.text("node"),
        str(credentials),
    )  # fmt: skip
    make_home(home, new, partial(claim_place, home))
    return home


def test_chunks_of_a_home_are_in_its_bucket_and_in_its_backup(
    store: ObjectStore, credentials: Path, tmp_path: Path
) -> None:
    home = make(tmp_path, store, credentials)
    context = open_home_store(home, load_config(home.config), unlock(home, None))
    context.storage.put(NAME, CONTENT)
    assert set(store.objects) == {"node/owner", f"node/{NAME}"}
    assert not (home.root / "chunks").exists()
    backup = write_context(context, home, BackupFolder(tmp_path / "copy"))
    context.close()
    assert f"chunks/{str(NAME)[:2]}/{NAME}" in backup.files
    root_key = unlock(home, None).root_key
    assert store.objects["node/owner"] == root_key.storage_owner().hex().encode()
    assert "= secret" not in home.config.read_text()


def test_home_is_not_made_where_the_place_cannot_be_taken(
    store: ObjectStore, credentials: Path, tmp_path: Path
) -> None:
    store.objects["node/owner"] = b"00" * 32
    with pytest.raises(StoreDenied, match="another node's chunks"):
        make(tmp_path, store, credentials)
    assert not (tmp_path / "home" / "keyring").exists()
    assert not (tmp_path / "kit").exists()
    store.objects.clear()
    make(tmp_path, store, credentials)


def test_store_is_not_opened_without_its_bucket(
    store: ObjectStore, credentials: Path, tmp_path: Path
) -> None:
    home = make(tmp_path, store, credentials)
    config, keys = load_config(home.config), unlock(home, None)
    store.objects.clear()
    with pytest.raises(StoreError, match="it was emptied"):
        open_home_store(home, config, keys)
    credentials.chmod(0o644)
    with pytest.raises(ConfigError, match="others can read"):
        open_home_store(home, config, keys)
    found = CliRunner().invoke(cli, ["--home", str(home.root), "config", "check"])
    assert found.exit_code == 3
    assert "others can read" in str(found.exception) + found.output


def settings(home: Home, **values: Any) -> Config:
    return replace(load_config(home.config), **values)


async def test_chunks_move_from_the_home_to_a_bucket_and_back(
    store: ObjectStore, credentials: Path, tmp_path: Path
) -> None:
    home, _ = make_node(tmp_path)  # three chunks in its files
    keys, place = unlock(home, None), store.text("node")
    moved: list[tuple[str, dict[str, object]]] = []

    async def record(kind: str, facts: dict[str, object]) -> None:
        moved.append((kind, facts))

    there = settings(home, chunks=place, chunks_before="home", chunks_credentials=str(credentials))
    back = replace(there, chunks="", chunks_before=place)
    names: set[str] = set()
    for config, count in ((there, 3), (back, 3)):
        context = open_home_store(home, config, keys)
        assert [f.level for f in moving_finding(context.storage)] == ["ok"]
        await move_chunks(context.storage, Maintenance(context, home.root).chunks_here, record)
        [finding] = moving_finding(context.storage)
        assert "empty [store] chunks_before" in finding.advice
        assert len(list(context.storage.contents())) == count
        in_bucket = {k.removeprefix("node/") for k in store.objects} - {"owner"}
        in_files = {path.name for path in (home.root / "chunks").glob("*/*")}
        assert (in_files, in_bucket)[config is back] == set()
        names = names or in_bucket
        assert in_bucket | in_files == names
        context.close()
    assert [kind for kind, _ in moved] == ["store.chunks-moved"] * 2
    assert [facts["to"] for _, facts in moved] == ["s3://chunks/node", "home"]


def test_place_that_is_the_same_under_two_names_moves_nothing(
    store: ObjectStore, credentials: Path, tmp_path: Path
) -> None:
    home = make(tmp_path, store, credentials)
    keys, place = unlock(home, None), store.text("node")
    before = dict(store.objects)
    other = place.replace("127.0.0.1", "localhost")
    for chunks, earlier in ((place, place), (place, other), ("", "home")):
        with pytest.raises(ConfigError, match="are the same place"):
            open_home_store(home, settings(home, chunks=chunks, chunks_before=earlier), keys)
    assert store.objects == before


def test_odd_place_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    new = NewNode("Clinic", tmp_path / "kit", None, "127.0.0.1:0", "127.0.0.1:0", "s3://x")
    with pytest.raises(ConfigError, match="chunks must be a place such as s3:"):
        make_home(Home(tmp_path / "home"), new)
    assert not (tmp_path / "home").exists()
