"""New keys for what a directory holds: its TLS identity, its tickets' key, its own key.

The directory's own key makes sessions, challenges and relay tickets, keeps strangers out of what
its processes tell each other, and encrypts the embedded database. It is replaced in steps that can
be cut off anywhere: the next key is written first, and goes into its place once the database has
it. Whoever opens the home next finishes what was begun.
"""

import secrets
import time
from pathlib import Path

from directory_service.home import Home, certify_ticket_key, database_key
from directory_service.operator import OperatorKey, replace_all, write_new
from node.crypto.certificates import TlsIdentity, issue_directory_certificate
from node.errors import ConfigError
from node.sql.database import change_key, opens


def renew(home: Home, key: OperatorKey) -> None:
    """Give the service a new TLS identity, and its tickets the network's word for the relays.

    Both are used from the next start on.

    Raises:
        ConfigError: no home is there, it is another network's, or it cannot be written.
    """
    root, relays, now = _root(home, key), home.load_config().relays, time.time()
    tls = issue_directory_certificate(root, now)
    replace_all(
        {
            home.root / "ticket.cert": certify_ticket_key(key, home.key(), relays, now),
            home.root / "tls.key": tls.private_pem,
            home.root / "tls.pem": tls.certificate_pem,
        }
    )


def rotate(home: Home, key: OperatorKey) -> None:
    """Give a directory that does not run new keys for everything.

    All sessions end with it. What a thief has of the old ones is good for nothing here any more;
    see docs/operations-directory.md for what it is good for elsewhere.

    Raises:
        StoreLocked: it runs.
        ConfigError: see `renew`.
        StoreError: the database is damaged; nothing was changed.
    """
    _root(home, key)
    with home.locked():
        settle(home)
        _replace_key(home, secrets.token_bytes(32))
        renew(home, key)


def settle(home: Home) -> None:
    """Finish, or undo, a change of the directory's key that was cut off. The home is locked."""
    following = _next(home)
    if not following.exists():
        return
    if home.database.exists() and not opens(home.database, database_key(home.key())):
        secret = following.read_bytes()
        if not opens(home.database, database_key(secret)):
            return  # of neither key: whoever opens it says what to do
        replace_all({home.key_file: secret})
    following.unlink()


def _replace_key(home: Home, secret: bytes) -> None:
    following = _next(home)
    write_new(following, secret)
    if home.database.exists():
        change_key(home.database, database_key(home.key()), database_key(secret))
    replace_all({home.key_file: secret})
    following.unlink()


def _root(home: Home, key: OperatorKey) -> TlsIdentity:
    if key.root is None or home.load_config().network_key != key.network_key:
        raise ConfigError("this needs the network key of this directory's own network")
    return key.root


def _next(home: Home) -> Path:
    return home.key_file.with_suffix(".next")
