"""A directory's home: its files, its lock, making a new one.

```
directory.toml            configuration, the network's public key in it
directory.key             32 bytes: sessions and the embedded database derive from it
tls.key tls.pem root.pem  TLS identity of the service, and the root that signed it
directory.db              SQLCipher, unless PostgreSQL is used
admin.sock                while it runs
```

The network key is not here: what signs invitations and lists stays with the operator.
"""

import base64
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from directory_service.operator import OperatorKey, write_new
from node.crypto.certificates import TlsIdentity, issue_directory_certificate, pem_to_der
from node.errors import ConfigError, StoreLocked
from node.settings import (
    address,
    check_settings,
    choice,
    load_settings,
    name,
    optional_address,
    quoted,
)


def _key(value: object) -> bytes:
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
        name: `[network]` what nodes are told.
        network_key: `[network] key` what all documents are held against.
        listen: `[listen] nodes` address of the service.
        database: `[database] url` PostgreSQL; empty for the embedded database.
        metrics_listen: `[metrics]` address of the Prometheus page; empty for none.
        log_level: `[log]` how much is logged.
    """

    name: str = field(metadata={"section": "network", "check": name})
    network_key: bytes = field(metadata={"section": "network", "key": "key", "check": _key})
    listen: str = field(
        default="0.0.0.0:7420", metadata={"section": "listen", "key": "nodes", "check": address}
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
# What nodes are told.
name = {name}
# The network's public key. All invitations and lists are held against it.
key = "{key}"

[listen]
# Where nodes connect (TLS).
nodes = "{listen}"

[database]
# Empty: an embedded database in this home. Several processes share a PostgreSQL:
# "postgresql://emix@db.example.org/emix" (the password rather in a PGPASSFILE).
url = {database}

[metrics]
# Where Prometheus may ask, for example "127.0.0.1:7422". Empty: nowhere.
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
    def socket(self) -> Path:
        """The admin socket."""
        return self.root / "admin.sock"

    def load_config(self) -> Config:
        """Return the settings; `ConfigError` lists all their problems."""
        return load_settings(Config, self.config, "emix-directory init")

    def key(self) -> bytes:
        """Return the directory's key; `ConfigError` if it cannot be read."""
        return _read(self.root / "directory.key")

    def tls(self) -> TlsIdentity:
        """Return the service's TLS identity; `ConfigError` if it cannot be read."""
        return TlsIdentity(_read(self.root / "tls.key"), _read(self.root / "tls.pem"))

    def root_certificate(self) -> bytes:
        """Return the root's certificate, DER; `ConfigError` if it cannot be read."""
        return pem_to_der(_read(self.root / "root.pem"))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the home for this process.

        Raises:
            StoreLocked: another process holds it.
            ConfigError: it is no home, or not ours to use.
        """
        if not self.config.exists():
            raise ConfigError(
                f"{self.root} is not a directory's home; make one with `emix-directory init`"
            )
        try:
            fd = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise ConfigError(f"{self.root} cannot be used ({exc.strerror})") from exc
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as exc:
            raise StoreLocked(f"another process is using {self.root}") from exc
        finally:
            os.close(fd)


def make_home(home: Home, key: OperatorKey, listen: str, database: str) -> None:
    """Make a directory's home for a network whose key is at hand.

    Raises:
        ConfigError: there is one already, or it cannot be written.
        UsageError: a list key cannot make one.
    """
    if key.root is None:
        raise ConfigError("a list key makes no directory; this needs the network key")
    if home.config.exists():
        raise ConfigError(f"{home.root} is a directory's home already")
    text = _TEMPLATE.format(
        name=quoted(key.name),
        key=base64.b64encode(key.network_key).decode("ascii"),
        listen=listen,
        database=quoted(database),
    )
    check_settings(Config, text, "what you asked for")
    home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    home.root.chmod(0o700)
    tls = issue_directory_certificate(key.root, time.time())
    for file, data in (
        ("directory.key", secrets.token_bytes(32)),
        ("tls.key", tls.private_pem),
        ("tls.pem", tls.certificate_pem),
        ("root.pem", key.root.certificate_pem),
    ):
        (home.root / file).unlink(missing_ok=True)  # of an `init` that was interrupted
        write_new(home.root / file, data)
    write_new(home.config, text.encode(), 0o600)


def renew_certificate(home: Home, key: OperatorKey) -> None:
    """Give the service a new TLS certificate; it is used from the next start on.

    Raises:
        ConfigError: no home is there, it is another network's, or it cannot be written.
    """
    if key.root is None or home.load_config().network_key != key.network_key:
        raise ConfigError("this needs the network key of this directory's own network")
    tls = issue_directory_certificate(key.root, time.time())
    for file, data in (("tls.key", tls.private_pem), ("tls.pem", tls.certificate_pem)):
        temporary = home.root / f"{file}.new"
        temporary.unlink(missing_ok=True)
        write_new(temporary, data)
    for file in ("tls.key", "tls.pem"):
        (home.root / f"{file}.new").rename(home.root / file)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read ({exc.strerror})") from exc
