"""A directory's home: its files, its lock, making a new one.

```
directory.toml            configuration, the network's public key in it
directory.key             32 bytes: sessions and the embedded database derive from it
ticket.cert               the network's certificate for this directory's ticket key
tls.key tls.pem root.pem  TLS identity of the service, and the root that signed it
newest.list               the newest signed list, in case that the database is lost
directory.db              SQLCipher, unless PostgreSQL is used
admin.sock                while it runs
```

The network key is not here: what signs invitations and lists stays with the operator.
"""

import base64
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from directory_service.operator import OperatorKey, replace_all, write_new
from node.crypto.certificates import (
    DIRECTORY_DAYS,
    TlsIdentity,
    issue_directory_certificate,
    pem_to_der,
)
from node.crypto.digests import derive_key
from node.crypto.signing import SigningKey
from node.documents.lists import MAX_LIST_BYTES
from node.documents.tickets import (
    TicketSigner,
    certify_tickets,
    read_ticket_signer,
    ticket_relays,
)
from node.errors import ConfigError, DocumentError
from node.settings import (
    address,
    addresses,
    check_settings,
    choice,
    load_settings,
    name,
    optional_address,
    quoted,
    whole,
)
from node.system import safe_paths
from node.system.locks import locked


def read_network_key(value: object) -> bytes:
    """Check a network's public key in base64; `ValueError` if it is none."""
    try:
        data = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except ValueError:
        data = b""
    if len(data) != 32:
        raise ValueError("the network's public key in base64")
    return data


def _url(value: object) -> str:
    if not isinstance(value, str) or not (not value or value.startswith("postgresql://")):
        raise ValueError('an address such as "postgresql://emix@db.example.org/emix", or empty')
    return value


@dataclass(frozen=True)
class Config:
    """All settings, checked.

    Attributes (by section of the file):
        name: `[network]` the network's name for nodes.
        network_key: `[network] key` verifies all documents.
        listen: `[listen] nodes` address of the service.
        relay_listen: `[relay] listen` address of a relay in this process; empty for none.
        relays: `[relay] addresses` all relays that nodes are sent to, as they reach them.
        streams_of_facility: `[relay]` pairs at once, in this process's relay.
        gib_of_facility: `[relay] gib_a_day_of_facility` in this process's relay; 0: no bound.
        mbit_a_second: `[relay]` of all pairs together, in this process's relay; 0: no bound.
        database: `[database] url` PostgreSQL; empty for the embedded database.
        metrics_listen: `[metrics]` address of the Prometheus page; empty for none.
        strangers_a_minute: `[limits]` calls without a session, of one address.
        strangers_at_once: `[limits]` connections of one address to a relay that have shown no
            ticket yet; to the directory, four times as many that have not logged in.
        log_level: `[log]` how much is logged.
    """

    name: str = field(metadata={"section": "network", "check": name})
    network_key: bytes = field(
        metadata={"section": "network", "key": "key", "check": read_network_key}
    )
    listen: str = field(
        default="0.0.0.0:7420", metadata={"section": "listen", "key": "nodes", "check": address}
    )
    relay_listen: str = field(
        default="", metadata={"section": "relay", "key": "listen", "check": optional_address}
    )
    relays: tuple[str, ...] = field(
        default=(), metadata={"section": "relay", "key": "addresses", "check": addresses}
    )
    streams_of_facility: int = field(
        default=16,
        metadata={"section": "relay", "key": "streams_of_facility", "check": whole(1, 10_000)},
    )
    gib_of_facility: int = field(
        default=0,
        metadata={"section": "relay", "key": "gib_a_day_of_facility", "check": whole(0, 10**6)},
    )
    mbit_a_second: int = field(
        default=0,
        metadata={"section": "relay", "key": "mbit_a_second", "check": whole(0, 10**6)},
    )
    strangers_a_minute: int = field(
        default=120, metadata={"section": "limits", "check": whole(1, 10**6)}
    )
    strangers_at_once: int = field(
        default=16, metadata={"section": "limits", "check": whole(1, 10**6)}
    )
    database: str = field(default="", metadata={"section": "database", "key": "url", "check": _url})
    metrics_listen: str = field(
        default="", metadata={"section": "metrics", "key": "listen", "check": optional_address}
    )
    log_level: str = field(
        default="info",
        metadata={
            "section": "log",
            "key": "level",
            "check": choice("debug", "info", "warning", "error"),
        },
    )


_TEMPLATE = """\
# emix directory. Restart after a change. Lines that begin with # show the defaults.

[network]
# The network's name, as nodes show it.
name = {name}
# The network's public key. It verifies all invitations and lists.
key = "{key}"

[listen]
# The address to which nodes connect (TLS).
nodes = "{listen}"

[relay]
# The address of this process's relay, for nodes that cannot reach each other, for example
# "0.0.0.0:7421". Empty: no relay.
listen = {relay_listen}
# The public addresses of all relays of the network, this one's first. After a change, run
# `emix-directory renew --network-key FILE`: nodes use only relays that the network has named.
addresses = {relays}
# How many relayed pairs of connections a facility may have at once, and how many GiB it may send a
# day (0: no limit).
# streams_of_facility = 16
# gib_a_day_of_facility = 0
# The rate of all pairs together, in Mbit/s (0: no limit). They share it evenly, however many
# connections each has.
# mbit_a_second = 0

[database]
# Empty: an embedded database in this home. Several processes need a shared PostgreSQL:
# "postgresql://emix@db.example.org/emix?sslmode=verify-full&sslrootcert=/etc/emix/postgres-ca.pem"
# (put the password into a PGPASSFILE). On another machine its certificate must be verified.
url = {database}

[limits]
# Calls that one address may make without a session. Behind a reverse proxy all nodes share one
# address: then allow about four calls a minute for each node, and limit addresses in the proxy.
# strangers_a_minute = 120
# Connections from one address to the relay that have presented no ticket yet; to the directory,
# four times as many that have not logged in.
# strangers_at_once = 16

[metrics]
# The address for Prometheus, for example "127.0.0.1:7422". Empty: no metrics.
# listen = ""

[log]
# "debug", "info", "warning" or "error".
# level = "info"
"""


@dataclass(frozen=True)
class Home:
    """The paths of one home."""

    root: Path

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.root / "directory.toml"

    @property
    def database(self) -> Path:
        """The embedded database."""
        return self.root / "directory.db"

    @property
    def key_file(self) -> Path:
        """The directory's key."""
        return self.root / "directory.key"

    @property
    def socket(self) -> Path:
        """The admin socket."""
        return self.root / "admin.sock"

    @property
    def kept_list(self) -> "ListFile":
        """The newest list, which a lost database must not forget."""
        return ListFile(self.root / "newest.list")

    def load_config(self) -> Config:
        """Return the settings; `ConfigError` lists all their problems."""
        return load_settings(Config, self.config, "emix-directory init")

    def key(self) -> bytes:
        """Return the directory's key; `ConfigError` if it cannot be read."""
        return _read(self.key_file)

    def tls(self) -> TlsIdentity:
        """Return the service's TLS identity; `ConfigError` if it cannot be read."""
        return TlsIdentity(_read(self.root / "tls.key"), _read(self.root / "tls.pem"))

    def tickets(self) -> TicketSigner:
        """Return what signs relay tickets; `ConfigError` if it cannot be read, or is of others."""
        try:
            return read_ticket_signer(_ticket_key(self.key()), _read(self.root / "ticket.cert"))
        except DocumentError as exc:
            raise ConfigError(
                f"{exc}: run `emix-directory renew --network-key FILE`, and start the directory"
            ) from exc

    def root_certificate(self) -> bytes:
        """Return the root's certificate, DER; `ConfigError` if it cannot be read."""
        return pem_to_der(_read(self.root / "root.pem"))

    def unnamed_relays(self) -> list[str]:
        """Return relays of the configuration that the network has not named: no node goes there."""
        named = ticket_relays(_read(self.root / "ticket.cert"))
        return [relay for relay in self.load_config().relays if relay not in named]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the home for this process.

        Raises:
            StoreLocked: another process holds it.
            ConfigError: it is no home, or not ours to use.
        """
        if not self.config.exists():
            raise ConfigError(
                f"{self.root} is not a directory's home; make one with `emix-directory init`"
            )
        with locked(self.root, "lock"):
            yield


@dataclass(frozen=True)
class ListFile:
    """See `directory_service.knowledge.KeptList`."""

    path: Path

    def load(self) -> bytes:
        """Return the list, empty for none; the caller must verify it."""
        return self.path.read_bytes()[: MAX_LIST_BYTES + 1] if self.path.exists() else b""

    def keep(self, encoded: bytes) -> None:
        """Keep a list in place of the earlier one, durably; `ConfigError` if it cannot be."""
        if encoded != self.load():
            replace_all({self.path: encoded}, 0o600)


def make_home(
    home: Home,
    key: OperatorKey,
    *,
    listen: str,
    database: str,
    relay_listen: str,
    relays: Sequence[str],
    signed_list: bytes,
    keep_key: Callable[[], None],
) -> None:
    """Make a directory's home for a network whose key is at hand.

    `keep_key` is called once all of it is known to be right, before anything is written.
    `signed_list` is the newest one of the network, empty for a new network.

    Raises:
        ConfigError: there is one already, or it cannot be written.
        UsageError: a list key cannot make one.
    """
    if key.root is None:
        raise ConfigError("a list key cannot make a directory; use the network key file")
    if home.config.exists():
        raise ConfigError(f"{home.root} is a directory's home already")
    text = _TEMPLATE.format(
        name=quoted(key.name),
        key=base64.b64encode(key.network_key).decode("ascii"),
        listen=listen,
        database=quoted(database),
        relay_listen=quoted(relay_listen),
        relays=f"[{', '.join(map(quoted, relays))}]",
    )
    check_settings(Config, text, "what you asked for")
    try:
        safe_paths.real_folder(home.root, make=True, is_ours=True).chmod(0o700)
    except OSError as exc:
        raise ConfigError(f"{home.root} cannot be made ({exc.strerror})") from exc
    keep_key()
    secret, now = secrets.token_bytes(32), time.time()
    tls = issue_directory_certificate(key.root, now)
    for file, data in (
        ("directory.key", secret),
        ("ticket.cert", certify_ticket_key(key, secret, relays, now)),
        ("tls.key", tls.private_pem),
        ("tls.pem", tls.certificate_pem),
        ("root.pem", key.root.certificate_pem),
    ):
        (home.root / file).unlink(missing_ok=True)  # of an `init` that was interrupted
        write_new(home.root / file, data)
    if signed_list:
        home.kept_list.keep(signed_list)
    write_new(home.config, text.encode(), 0o600)


def database_key(secret: bytes) -> bytes:
    """Return the embedded database's key, of the directory's."""
    return derive_key("emix 2026-11 directory database v1", secret)


def bus_key(secret: bytes) -> bytes:
    """Return the MAC key of messages between processes, derived from the directory's key."""
    return derive_key("emix 2026-11 directory bus v1", secret)


def _ticket_key(secret: bytes) -> SigningKey:
    return SigningKey(derive_key("emix 2026-11 directory tickets v1", secret))


def certify_ticket_key(key: OperatorKey, secret: bytes, relays: Sequence[str], now: float) -> bytes:
    """Return the network's certificate for the ticket key derived from a directory's key."""
    expires = now + DIRECTORY_DAYS * 86400
    return certify_tickets(key.key, _ticket_key(secret).public, relays, expires)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        why = safe_paths.denial(path, os.R_OK) or exc.strerror
        raise ConfigError(f"{path} cannot be read: {why}") from exc
