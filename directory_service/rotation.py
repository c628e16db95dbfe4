"""Rotating a directory's keys: its TLS identity, its ticket key, its own key.

From the directory's own key derive sessions, challenges, relay tickets, the authentication of
messages between its processes, and the encryption of the embedded database. The key is replaced in
steps that may be interrupted at any point: the next key is written first, and takes the old one's
place once the database is encrypted with it. The next process that opens the home completes an
interrupted rotation.
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
    """Give the service a new TLS identity, and a new network certificate for its ticket key.

    The certificate names the present relays. Both are used from the next start on.

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
    """Replace all keys of a directory that does not run.

    All sessions end. Stolen old keys are then useless at this directory;
    docs/operations-directory.md says where they can still be misused.

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
            return  # neither key opens it: opening the database will report what to do
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
        raise ConfigError("renewing needs the network key file of this directory's network")
    return key.root


def _next(home: Home) -> Path:
    return home.key_file.with_suffix(".next")
