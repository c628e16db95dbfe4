"""One contract for both databases."""

import secrets
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
import trio

from directory_service.postgres import open_postgres
from directory_service.sqlite import SqliteEngine
from directory_service.storage import Engine, Storage, StoredMember, StoredNode
from node.domain.ids import FacilityId, InvitationId, NodeId
from node.domain.network import NO_LIST
from node.errors import ConfigError, Conflict, StoreError
from tests.support.postgres import Postgres, running_postgres

NOW = 1_800_000_000
KEY = bytes(range(32))
# Whoever adds a column says here that nothing of a patient or a study can get into it.
COLUMNS = {
    "members": {"invitation", "facility", "membership", "joined_seconds"},
    "nodes": {
        "node",
        "facility",
        "statements",
        "listing",
        "announced_seconds",
        "expires_seconds",
    },
    "generations": {"facility", "generation"},
    "lists": {"epoch", "number", "list"},
    "spent": {"challenge", "expires_seconds"},
}


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    # Below /tmp itself: an unprivileged server may not pass pytest's own folders.
    folder = Path("/tmp") / f"emix-postgres-{secrets.token_hex(4)}"
    with running_postgres(folder) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def engine_kind(request: pytest.FixtureRequest) -> str:
    if request.param == "postgres":
        server: Postgres = request.getfixturevalue("postgres")
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        return server.url
    return ""


@asynccontextmanager
async def opened(kind: str, folder: Path) -> AsyncGenerator[Storage]:
    engine: Engine
    engine = await open_postgres(kind, KEY) if kind else SqliteEngine(folder / "directory.db", KEY)
    storage = Storage(engine)
    try:
        yield storage
    finally:
        await storage.aclose()


def make_member(n: int, facility: int, joined: int = NOW) -> StoredMember:
    return StoredMember(
        InvitationId(bytes([n]) * 32), FacilityId(bytes([facility]) * 32), b"signed\0\xff", joined
    )


def make_node(n: int, listing: bytes = b"listing", expires: int = NOW + 60) -> StoredNode:
    return StoredNode(
        NodeId(bytes([n]) * 32), FacilityId(bytes([n]) * 32), b"\0\xff", listing, NOW, expires
    )


async def test_what_is_kept_is_there_after_a_restart(engine_kind: str, tmp_path: Path) -> None:
    async with opened(engine_kind, tmp_path) as storage:
        assert await storage.enroll(make_member(1, 1, NOW + 1))
        assert await storage.enroll(make_member(2, 2, NOW))
        await storage.put_node(make_node(1))
        await storage.put_list((1, 1), b"first")
    async with opened(engine_kind, tmp_path) as storage:
        assert await storage.members() == [make_member(2, 2, NOW), make_member(1, 1, NOW + 1)]
        assert await storage.nodes(NOW) == [make_node(1)]
        assert await storage.node(make_node(1).node) == make_node(1)
        assert await storage.node(make_node(2).node) is None
        assert await storage.latest_list() == b"first"


async def test_invitation_is_used_by_one_facility(engine_kind: str, tmp_path: Path) -> None:
    async with opened(engine_kind, tmp_path) as storage:
        assert await storage.enroll(make_member(1, 1))
        assert not await storage.enroll(make_member(1, 1))
        with pytest.raises(Conflict, match="another facility"):
            await storage.enroll(make_member(1, 2))
        assert await storage.members() == [make_member(1, 1)]


async def test_of_fifty_that_use_an_invitation_at_once_one_succeeds(
    engine_kind: str, tmp_path: Path
) -> None:
    async with opened(engine_kind, tmp_path) as storage:
        for n in range(20):
            outcomes: list[str] = []

            async def use(
                n: int, facility: int, started: trio.Event, outcomes: list[str] = outcomes
            ) -> None:
                await started.wait()
                try:
                    added = await storage.enroll(make_member(n, facility))
                except Conflict:
                    outcomes.append("refused")
                else:
                    outcomes.append("used" if added else "again")

            started = trio.Event()
            async with trio.open_nursery() as nursery:
                for facility in range(50):
                    nursery.start_soon(use, n, facility, started)
                started.set()
            assert sorted(outcomes) == ["refused"] * 49 + ["used"]
        assert len(await storage.members()) == 20


async def test_challenge_is_spent_once(engine_kind: str, tmp_path: Path) -> None:
    async with opened(engine_kind, tmp_path) as storage:
        outcomes: list[bool] = []

        async def spend() -> None:
            outcomes.append(await storage.spend(b"challenge", NOW + 60, NOW))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(spend)
        assert sorted(outcomes) == [False] * 19 + [True]
        # Remembered until it could not be used any more, by whoever's clock, and not for ever.
        assert not await storage.spend(b"challenge", NOW + 60, NOW + 60)
        assert not await storage.spend(b"challenge", NOW + 60, NOW + 3600)
        assert await storage.spend(b"challenge", NOW + 120, NOW + 3700)


async def test_lists_only_go_forward(engine_kind: str, tmp_path: Path) -> None:
    async with opened(engine_kind, tmp_path) as storage:
        assert await storage.latest_list() is None
        await storage.put_list((1, 3), b"three")
        for number in (2, 3):
            with pytest.raises(Conflict, match="list 3"):
                await storage.put_list((1, number), b"other")
        assert await storage.latest_list() == b"three"
        for number in range(4, 40):
            await storage.put_list((1, number), b"later")
        await storage.put_list((2, 1), b"of the next epoch")
        with pytest.raises(Conflict, match="list 1 of epoch 2"):
            await storage.put_list((1, 100), b"of the one before")
        assert await storage.latest_list() == b"of the next epoch"
        assert await storage.counts() == (0, (2, 1))


async def test_later_announcement_replaces_an_earlier_and_expires(
    engine_kind: str, tmp_path: Path
) -> None:
    async with opened(engine_kind, tmp_path) as storage:
        await storage.put_node(make_node(1))
        await storage.put_node(make_node(1, b"newer"))
        await storage.put_node(make_node(2, expires=NOW + 10))
        assert await storage.nodes(NOW) == [make_node(1, b"newer"), make_node(2, expires=NOW + 10)]
        assert await storage.nodes(NOW + 10) == [make_node(1, b"newer")]
        # Not forgotten by one whose clock is ahead.
        assert await storage.nodes(NOW + 1000) == []
        assert len(await storage.nodes(NOW)) == 2
        assert await storage.nodes(NOW + 10**6) == await storage.nodes(NOW) == []


async def test_what_was_kept_of_late_is_found(engine_kind: str, tmp_path: Path) -> None:
    async with opened(engine_kind, tmp_path) as storage:
        await storage.put_node(make_node(1, expires=NOW + 10**6))
        later = replace(make_node(2, expires=NOW + 10**6), announced_seconds=NOW + 1000)
        await storage.put_node(later)
        assert await storage.nodes(NOW + 1000, since=NOW + 1000) == [later]
        assert len(await storage.nodes(NOW + 1000, since=NOW)) == 2
        assert await storage.counts() == (0, NO_LIST)
        await storage.enroll(make_member(1, 1))
        await storage.put_list((1, 7), b"seven")
        assert await storage.counts() == (1, (1, 7))


async def test_no_column_can_carry_patient_or_study_data(engine_kind: str, tmp_path: Path) -> None:
    async with opened(engine_kind, tmp_path) as storage:
        sql = (
            "SELECT t.name, c.name FROM sqlite_schema t JOIN pragma_table_info(t.name) c"
            " WHERE t.type = 'table'"
        )
        if engine_kind:
            sql = (
                "SELECT table_name, column_name FROM information_schema.columns"
                " WHERE table_schema = 'public'"
            )
        rows = await storage._engine.run(lambda tx: tx.execute(sql))
    found: dict[str, set[str]] = {}
    for names in rows:  # bytes, where the database knows no encoding
        table, column = (n.decode() if isinstance(n, bytes) else n for n in names)
        found.setdefault(table, set()).add(column)
    of_the_engine = {"steps", "_sqlite_migrations", "sqlite_stat1", "sqlite_sequence"}
    assert {t: c for t, c in found.items() if t not in of_the_engine} == COLUMNS


def test_sqlite_file_is_encrypted(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened("", tmp_path) as storage:
            await storage.put_node(make_node(1, b"planted-listing"))

    trio.run(work)
    assert b"planted-listing" not in (tmp_path / "directory.db").read_bytes()
    with pytest.raises(StoreError, match="restore its contents"):
        SqliteEngine(tmp_path / "directory.db", bytes(32))


async def test_database_that_is_not_there_is_an_error_of_the_configuration() -> None:
    with pytest.raises(ConfigError, match="PostgreSQL"):
        await open_postgres("postgresql://emix@127.0.0.1:1/none", KEY)


async def test_database_that_goes_away_fails_calls_and_comes_back(tmp_path: Path) -> None:
    with running_postgres(Path("/tmp") / f"emix-postgres-{secrets.token_hex(4)}") as server:
        async with opened(server.url, tmp_path) as storage:
            assert await storage.enroll(make_member(1, 1))
            server.stop()
            with pytest.raises(StoreError, match="does not answer"):
                await storage.enroll(make_member(2, 2))
            server.start()
            with trio.fail_after(30):
                while True:
                    try:
                        await storage.enroll(make_member(2, 2))
                        break
                    except StoreError:
                        await trio.sleep(0.2)
            assert len(await storage.members()) == 2


@pytest.mark.slow
async def test_database_is_used_soon_after_it_is_back_however_long_it_was_away(
    tmp_path: Path,
) -> None:
    with running_postgres(Path("/tmp") / f"emix-postgres-{secrets.token_hex(4)}") as server:
        async with opened(server.url, tmp_path) as storage:
            server.stop()
            # A pool that tries after 1, 2, 4, 8, 16 seconds would not try again for twenty more.
            until = trio.current_time() + 31
            while trio.current_time() < until:
                with pytest.raises(StoreError, match="does not answer"):
                    await storage.members()
            server.start()
            back = trio.current_time()
            while True:
                with suppress(StoreError):
                    await storage.members()
                    break
                await trio.sleep(0.1)
            assert trio.current_time() - back < 15
