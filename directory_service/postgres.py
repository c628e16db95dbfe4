"""PostgreSQL, for networks with several directory processes."""

import ipaddress
import os
import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import psycopg
import psycopg.conninfo
import psycopg_pool
import structlog
import trio

from directory_service.bus import BusMessage, Take
from directory_service.storage import SCHEMA, Transaction
from node.crypto.digests import keyed_digest
from node.domain.display_text import printable
from node.errors import ConfigError, StoreAway, StoreError

log = structlog.get_logger()
T = TypeVar("T")
_CONNECT_SECONDS = 5.0
_RECONNECT_SECONDS = 2.0
_ANSWER_SECONDS = 8.0  # less than nodes wait
_AWAY = "the directory's database does not answer; try again soon"
_STATEMENT_MILLISECONDS = 10_000
_CONNECTIONS = 4
# Detects a server that disappeared without closing the connection.
_SILENCE: Any = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}


def channel_of(key: bytes) -> str:
    """Return the secret name of the channel on which a directory's processes notify each other.

    Every user of the database can send notifications; with the name, one could flood the processes
    with undecodable ones.
    """
    return "emix_" + keyed_digest(key, b"channel").hex()[:32]


class _Transaction:
    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        self._connection = connection

    def execute(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """See `Transaction.execute`."""
        # No statement here has a question mark or a percent sign of its own.
        cursor = self._connection.execute(sql.replace("?", "%s").encode(), values)
        return cursor.fetchall() if cursor.description else []


class PostgresEngine:
    """See `directory_service.storage.Engine`. Use `open_postgres`."""

    def __init__(self, pool: psycopg_pool.ConnectionPool[Any], key: bytes) -> None:
        self._pool = pool
        self._key = key
        self._limiter = trio.CapacityLimiter(_CONNECTIONS)

    async def run(self, work: Callable[[Transaction], T], message: BusMessage | None = None) -> T:
        """See `Engine.run`."""
        # A server that is frozen keeps its connections, and no time-out of its own runs out.
        with trio.CancelScope(deadline=trio.current_time() + _ANSWER_SECONDS, shield=True):
            return await trio.to_thread.run_sync(
                self._run, work, message, limiter=self._limiter, abandon_on_cancel=True
            )
        raise StoreAway(_AWAY)

    def _run(self, work: Callable[[Transaction], T], message: BusMessage | None) -> T:
        try:
            with self._pool.connection(timeout=_CONNECT_SECONDS) as connection:
                transaction = _Transaction(connection)
                found = work(transaction)
                if message is not None:
                    text = message.encode(self._key)
                    transaction.execute("SELECT pg_notify(?, ?)", channel_of(self._key), text)
                return found
        except (psycopg.Error, psycopg_pool.PoolTimeout) as exc:
            raise StoreAway(_AWAY) from exc

    async def aclose(self) -> None:
        """See `Engine.aclose`."""
        await trio.to_thread.run_sync(self._pool.close)


class PostgresBus:
    """See `directory_service.bus.Bus`: LISTEN and NOTIFY."""

    is_shared = True

    def __init__(self, url: str, engine: PostgresEngine, key: bytes) -> None:
        """Prepare; `key` authenticates the messages and is shared by the processes."""
        self._url = url
        self._engine = engine
        self._key = key

    async def publish(self, message: BusMessage) -> None:
        """See `Bus.publish`."""
        await self._engine.run(lambda _: None, message)

    async def run(self, take: Take) -> None:
        """See `Bus.run`."""
        while True:
            try:
                # At the end nobody waits for a database that does not answer.
                await trio.to_thread.run_sync(self._listen, take, abandon_on_cancel=True)
            except psycopg.Error:
                pass  # it is away; the next connection looks at everything
            except Exception:  # a supervisor: whatever comes by this way ends no process
                log.exception("listening failed")
            await trio.sleep(random.uniform(0.5, 1.5))  # noqa: S311  # jitter

    def _listen(self, take: Take) -> None:
        with psycopg.connect(self._url, autocommit=True, **_SILENCE) as connection:
            connection.execute(f"LISTEN {channel_of(self._key)}".encode())
            trio.from_thread.run(take, None)
            while True:
                trio.from_thread.check_cancelled()
                for notify in connection.notifies(timeout=1.0):
                    message = BusMessage.decode(notify.payload, self._key)
                    if message is not None:
                        trio.from_thread.run(take, message)


def check_private(url: str, environment: Mapping[str, str]) -> None:
    """Check that the connection to a database is confidential and authenticated.

    It carries members, records and used challenges: an attacker who alters them can replay a login
    or remove a facility. libpq does not verify the server unless it is configured to.

    Args:
        url: As in `open_postgres`.
        environment: The environment, from which libpq takes settings that the URL lacks.

    Raises:
        ConfigError: the server is on another machine, and its certificate would not be verified.
    """
    try:
        stated = psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.Error as exc:
        raise ConfigError(
            "[database] url is not an address that PostgreSQL's library accepts"
        ) from exc

    def setting(name: str) -> str:
        return str(stated.get(name) or environment.get(f"PG{name.upper()}", ""))

    hosts = [h for name in ("host", "hostaddr") for h in setting(name).split(",") if h]
    if not setting("service") and all(map(_is_local, hosts)):
        return
    mode, roots = setting("sslmode"), setting("sslrootcert")
    # A public authority issues certificates to anybody, so then the host name must be verified.
    if mode == "verify-full" or (mode == "verify-ca" and roots not in ("", "system")):
        return
    raise ConfigError(
        "[database] url names a server on another machine, whose certificate is not verified: add"
        " ?sslmode=verify-full&sslrootcert=/etc/emix/postgres-ca.pem, the certificate of the"
        " authority that signed the server's"
    )


def _is_local(host: str) -> bool:
    if host.startswith(("/", "@")) or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def open_postgres(url: str, key: bytes) -> PostgresEngine:
    """Connect to a database and bring its schema up to date.

    Args:
        url: `postgresql://user@host/name`; passwords rather in a passfile (PGPASSFILE).
        key: Authenticates the messages between the processes.

    Raises:
        ConfigError: it cannot be reached or used, or is on another machine without verified TLS.
    """
    check_private(url, os.environ)
    pool: psycopg_pool.ConnectionPool[Any] = psycopg_pool.ConnectionPool(
        url,
        min_size=1,
        max_size=_CONNECTIONS,
        kwargs={"options": f"-c statement_timeout={_STATEMENT_MILLISECONDS}", **_SILENCE},
        check=psycopg_pool.ConnectionPool.check_connection,
        # The pool doubles its pauses for as long as it may try. It gives a connection up soon
        # instead: the next call asks for a new one, at once, however long the server was away.
        reconnect_timeout=_RECONNECT_SECONDS,
        open=False,
    )
    try:
        await trio.to_thread.run_sync(_prepare, pool)
    except (psycopg.Error, psycopg_pool.PoolTimeout) as exc:
        await trio.to_thread.run_sync(pool.close)
        raise ConfigError(f"the PostgreSQL database cannot be used: {_why(url, exc)}") from exc
    return PostgresEngine(pool, key)


def _why(url: str, error: Exception) -> str:
    """Return why a database cannot be used, for whoever configures it."""
    try:
        psycopg.connect(url, **_SILENCE).close()
    except psycopg.OperationalError as exc:
        error = exc
    except psycopg.Error:
        pass
    text = printable(" ".join(str(error).split()))[:300]
    return f"{text}; check its address, name, user, password (PGPASSFILE) and rights"


def _prepare(pool: psycopg_pool.ConnectionPool[Any]) -> None:
    pool.open()
    pool.wait(timeout=_CONNECT_SECONDS)
    with pool.connection() as connection, suppress(psycopg.errors.UniqueViolation):
        # Two processes that start at one moment make it twice, and one of them fails.
        connection.execute(
            "CREATE TABLE IF NOT EXISTS steps (number BIGINT PRIMARY KEY, done_seconds BIGINT)"
        )
    with pool.connection() as connection:
        # A table lock needs write access; any user could take an advisory lock.
        connection.execute("LOCK TABLE steps IN EXCLUSIVE MODE")
        done = {number for (number,) in connection.execute("SELECT number FROM steps")}
        if max(done, default=0) > len(SCHEMA):
            raise StoreError(
                "the database was made by a newer emix-directory. Install that version or a later"
                " one; nothing was changed"
            )
        for number, statements in enumerate(SCHEMA, 1):
            if number in done:
                continue
            for statement in statements:
                connection.execute(statement.encode())
            connection.execute("INSERT INTO steps VALUES (%s, %s)", (number, int(time.time())))
