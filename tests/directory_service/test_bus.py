"""News between processes: only from who has the key, and never a reason to end."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from time import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from directory_service.bus import BusMessage, NoBus
from directory_service.home import ListFile
from directory_service.registry import Registry
from directory_service.replica import Replica
from directory_service.sqlite import SqliteEngine
from directory_service.storage import Storage
from node.crypto.signing import SigningKey

KEY, OTHER = bytes(32), b"x" * 32
KINDS = (
    "member",
    "node",
    "list",
    "online",
    "offline",
    "tell",
    "hello",
    "alive",
    "presence",
    "of later",
)


@given(
    st.text(max_size=20),
    st.sampled_from(KINDS),
    st.lists(st.binary(max_size=40), max_size=4),
    st.binary(max_size=200),
)
def test_news_comes_out_as_it_went_in(
    process: str, kind: str, ids: list[bytes], data: bytes
) -> None:
    news = BusMessage(process, kind, tuple(ids), data)
    assert BusMessage.decode(news.encode(KEY), KEY) == news
    assert BusMessage.decode(news.encode(OTHER), KEY) is None


@given(st.text(max_size=300))
def test_what_anybody_notifies_is_no_news(payload: str) -> None:
    assert BusMessage.decode(payload, KEY) is None


def test_news_with_one_character_changed_is_none() -> None:
    text = BusMessage("a", "online", (bytes(32),)).encode(KEY)
    for at in range(len(text)):
        other = text[:at] + ("0" if text[at] != "0" else "1") + text[at + 1 :]
        assert BusMessage.decode(other, KEY) is None
    assert BusMessage.decode(json.dumps(["a", "online", [], ""]), KEY) is None


@asynccontextmanager
async def known(folder: Path) -> AsyncGenerator[Replica]:
    storage = Storage(SqliteEngine(folder / "directory.db", KEY))
    yield Replica(
        Registry(SigningKey.new().public), storage, NoBus(), time, ListFile(folder / "list")
    )
    await storage.aclose()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ids", [(), (b"short",), (bytes(32),), (bytes(32), b"a thing")])
async def test_news_that_makes_no_sense_ends_nothing(
    kind: str, ids: tuple[bytes, ...], tmp_path: Path
) -> None:
    async with known(tmp_path) as replica:
        await replica._take_message(BusMessage("another", kind, ids, b"\xff\xff\xff"))
        await replica._take_message(None)
