"""A node's home directory: its files, its lock, making a new one, unlocking its keys.

```
emix.toml        configuration
keyring          slots and sealed keys; statements in the clear
host.key         only with a host slot: the key that opens it
metadata.db      SQLCipher
chunks/ envelopes/
admin.sock       while the node runs; admin.d/ has what is behind it
node.lock        held while the node runs
```
"""

import grp
import os
import pwd
import secrets
import shlex
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from node.app.config import Config, check_text, default_text, load_config
from node.crypto import argon2, keyring
from node.crypto.certificates import make_tls_identity
from node.crypto.keys import SealKey
from node.crypto.passphrases import check_passphrase
from node.crypto.signing import SigningKey, node_id
from node.documents.signed import DocumentSigner, Signer, certify_node
from node.errors import ConfigError, KeysError
from node.system import safe_paths
from node.system.durable_files import replace_synced, sync_directories
from node.system.locks import locked

MAX_SOCKET_PATH = 107
_OWN, _SEARCHED = 0o700, 0o710


@dataclass(frozen=True)
class Home:
    """The paths of one home."""

    root: Path

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.root / "emix.toml"

    @property
    def keyring(self) -> Path:
        """The keyring file."""
        return self.root / "keyring"

    @property
    def host_key(self) -> Path:
        """What opens the host slot, if there is one."""
        return self.root / "host.key"

    @property
    def socket(self) -> Path:
        """The admin socket."""
        return self.root / "admin.sock"

    @property
    def door(self) -> Path:
        """The folder for what is behind the admin socket."""
        return self.root / "admin.d"

    def admit_group(self, group: str) -> int | None:
        """Let a group's people reach the admin socket, and nothing else in the home; blocks.

        Returns:
            The group's number; None if none is named, and nobody else may enter then.

        Raises:
            ConfigError: there is no such group, or this user is not in it.
        """
        if not group:
            if stat.S_IMODE(self.root.stat().st_mode) == _SEARCHED:
                self.root.chmod(_OWN)
            return None
        number = group_number(group)
        try:
            os.chown(self.root, -1, number)
            self.root.chmod(_SEARCHED)
        except OSError as exc:
            raise _not_in(group, os.geteuid(), f" ({exc.strerror})") from exc
        return number

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the home for this process.

        Raises:
            StoreLocked: another process holds it.
            ConfigError: it is not a home, or this user may not use it.
        """
        if not self.keyring.exists():
            raise ConfigError(f"{self.root} is not a node's home; make one with `emix init`")
        with locked(self.root, "node.lock"):
            yield


def group_number(group: str) -> int:
    """Return a group's number; `ConfigError` if this machine has no such group."""
    try:
        return grp.getgrnam(group).gr_gid
    except (KeyError, ValueError) as exc:
        raise ConfigError(
            f"[admin] group: this machine has no group {group!r}; make it: groupadd"
            f" {shlex.quote(group)}"
        ) from exc


def check_group(group: str, user: int) -> None:
    """Check that a node of this user could let a group in, once it is started; nothing is changed.

    Raises:
        ConfigError: there is no such group, or that user is not in it.
    """
    number = group_number(group)
    try:
        known = pwd.getpwuid(user)
        groups = os.getgrouplist(known.pw_name, known.pw_gid)
    except KeyError:  # a user without a name: only its processes know its groups
        groups = [number] if user != os.geteuid() else [os.getegid(), *os.getgroups()]
    if user and number not in groups:
        raise _not_in(group, user, "")


def _not_in(group: str, user: int, reason: str) -> ConfigError:
    name = safe_paths.user_name(user)
    return ConfigError(
        f"[admin] group: {safe_paths.user_text(user)} is not in the group {group!r}; add it:"
        f" usermod -aG {shlex.quote(group)} {name}, and restart the node{reason}"
    )


@dataclass(frozen=True)
class Unlocked:
    """A home's keys in memory."""

    root_key: keyring.RootKey
    secrets: keyring.Secrets
    signer: DocumentSigner


@dataclass(frozen=True)
class NewNode:
    """What `emix init` was asked to make."""

    display_name: str
    recovery_kit: Path
    passphrase: bytes | None
    peer_listen: str
    introduction_listen: str
    chunks: str = ""
    chunks_credentials: str = ""
    cost: argon2.Cost = argon2.MODERATE


def check_length(root: Path) -> None:
    """Check that a home's path is one that a Unix socket in it can have."""
    if len(os.fsencode(root.resolve() / "admin.sock")) > MAX_SOCKET_PATH:
        raise ConfigError(f"{root} is too long for a Unix socket in it; choose a shorter path")


def make_home(
    home: Home, new: NewNode, claim: Callable[[Config, keyring.RootKey], None] = lambda _, __: None
) -> DocumentSigner:
    """Make a new home with fresh keys; write the recovery kit outside it.

    Args:
        home: The home to make.
        new: The options of the new node.
        claim: Called before any key is written, to claim the place for chunks; its errors pass.

    Raises:
        ConfigError: the home exists, the kit exists or would lie inside the home.
        KeysError: the passphrase is too short.
    """
    root = home.root.resolve()
    check_length(root)
    if home.keyring.exists():
        raise ConfigError(f"{root} is a node's home already")
    kit_path = safe_paths.absolute(new.recovery_kit).resolve()
    if kit_path.is_relative_to(root):
        raise ConfigError("the recovery kit must be outside the home: choose an offline place")
    if kit_path.is_dir():
        raise ConfigError(f"{kit_path} is a folder; name a file in it: {kit_path / 'kit.json'}")
    if kit_path.exists():
        raise ConfigError(f"{kit_path} exists, and may be another node's only kit; choose another")
    if not kit_path.parent.is_dir():
        raise ConfigError(f"{kit_path.parent} is not a folder; make it, or mount its disk")
    if new.passphrase is not None:
        check_passphrase(new.passphrase)
    text = default_text(
        new.display_name,
        new.peer_listen,
        new.introduction_listen,
        new.chunks,
        new.chunks_credentials,
    )
    config = check_text(text)
    safe_paths.real_folder(kit_path.parent)  # before anything is made
    try:
        safe_paths.real_folder(root, make=True, is_ours=True).chmod(0o700)
    except OSError as exc:
        raise ConfigError(f"{root} cannot be made ({exc.strerror})") from exc
    home.host_key.unlink(missing_ok=True)  # of an `init` that was interrupted
    kit, root_key, now = keyring.RecoveryKit.new(), keyring.RootKey.new(), time.time()
    claim(load_config(home.config) if home.config.exists() else config, root_key)
    node_key = SigningKey.new()
    signer = certify_node(kit.facility_key, node_key, now, generation=int(now))
    content = keyring.Secrets(
        node_key=node_key,
        seal_keys=(SealKey.new(),),
        tls=(make_tls_identity(node_id(node_key.public), now),),
        epochs={1: secrets.token_bytes(32)},
    )
    slots = [keyring.recovery_slot(root_key, kit.recovery_public)]
    if new.passphrase is not None:
        slots.insert(0, keyring.passphrase_slot(root_key, new.passphrase, new.cost))
    else:
        host_key = secrets.token_bytes(32)
        _write_secret(home.host_key, host_key)
        slots.insert(0, keyring.host_slot(root_key, host_key))
    _write_secret(kit_path, kit.encode(str(signer.facility_id)))
    if not home.config.exists():
        replace_synced(home.config, text.encode())
    public = _public(signer)
    sealed = keyring.seal_secrets(root_key, content)
    # Last: a home without a keyring is no home, and `init` can simply be repeated.
    replace_synced(home.keyring, keyring.Keyring(tuple(slots), public, sealed).encode())
    return DocumentSigner(node_key, signer)


def unlock(home: Home, passphrase: bytes | None) -> Unlocked:
    """Return a home's keys.

    Args:
        home: The home.
        passphrase: Opens the passphrase slot; None to use the host slot.

    Raises:
        KeysError: no slot opens; the message says which way is left.
    """
    return _open(load_keyring(home), unlock_root_key(home, passphrase))


def unlock_root_key(
    home: Home, passphrase: bytes | None, kit: keyring.RecoveryKit | None = None
) -> keyring.RootKey:
    """Return a home's root key by its recovery kit, else its passphrase, else its host key.

    Raises:
        KeysError: the given secret opens no slot; the message says what else can be tried.
    """
    ring = load_keyring(home)
    if kit is not None:
        return keyring.unlock_with_kit(ring, kit)
    if passphrase is not None:
        return keyring.unlock_with_passphrase(ring, passphrase)
    if home.host_key.exists() and ring.has_slot("host"):
        return keyring.unlock_with_host_key(ring, _host_key(home))
    raise KeysError("a passphrase is needed: --passphrase-file FILE, or run this in a terminal")


def _host_key(home: Home) -> bytes:
    try:
        return home.host_key.read_bytes()
    except OSError as exc:
        why = safe_paths.denial(home.host_key, os.R_OK) or exc.strerror
        raise KeysError(f"{home.host_key} cannot be read: {why}") from exc


def with_new_host_key(
    ring: keyring.Keyring, kit: keyring.RecoveryKit
) -> tuple[keyring.Keyring, bytes]:
    """Return a keyring that a new host key opens, and that key: for a restore from a backup.

    Raises:
        KeysError: the kit is another node's.
    """
    root_key = keyring.unlock_with_kit(ring, kit)
    host_key = secrets.token_bytes(32)
    slots = [slot for slot in ring.slots if slot.get("type") != "host"]
    slots.insert(0, keyring.host_slot(root_key, host_key))
    return keyring.Keyring(tuple(slots), ring.public, ring.sealed), host_key


def set_passphrase(
    home: Home, root_key: keyring.RootKey, passphrase: bytes, cost: argon2.Cost = argon2.MODERATE
) -> None:
    """Have a passphrase open this home from now on, and nothing else but the recovery kit.

    Raises:
        KeysError: the passphrase is too short.
    """
    check_passphrase(passphrase)
    ring = load_keyring(home)
    slots = [slot for slot in ring.slots if slot.get("type") == "recovery"]
    slots.insert(0, keyring.passphrase_slot(root_key, passphrase, cost))
    replace_synced(home.keyring, keyring.Keyring(tuple(slots), ring.public, ring.sealed).encode())
    home.host_key.unlink(missing_ok=True)
    sync_directories([home.root])


def load_keyring(home: Home) -> keyring.Keyring:
    """Return a home's keyring; `KeysError` if it cannot be read."""
    try:
        return keyring.Keyring.decode(home.keyring.read_bytes())
    except OSError as exc:
        why = safe_paths.denial(home.keyring, os.R_OK) or exc.strerror
        raise KeysError(f"{home.keyring} cannot be read: {why}") from exc


def needs_passphrase(home: Home) -> bool:
    """Return whether only a passphrase opens this home."""
    return not (home.host_key.exists() and load_keyring(home).has_slot("host"))


def save_secrets(home: Home, unlocked: Unlocked, content: keyring.Secrets) -> Unlocked:
    """Replace the secrets in a home's keyring; durable once this returns."""
    ring = load_keyring(home)
    sealed = keyring.seal_secrets(unlocked.root_key, content)
    replace_synced(home.keyring, keyring.Keyring(ring.slots, ring.public, sealed).encode())
    return Unlocked(unlocked.root_key, content, unlocked.signer)


def save_identity(
    home: Home, unlocked: Unlocked, signer: Signer, content: keyring.Secrets
) -> Unlocked:
    """Replace the node's certificate, and its secrets, in one step; durable once this returns.

    Raises:
        BadSignature: the certificate does not verify, or is from the future; nothing was written.
        KeysError: it is for another node key; nothing was written.
    """
    cert = signer.verified()
    cert.check_taken(time.time())
    if cert.node_key != content.node_key.public:
        raise KeysError("the certificate is for another node key")
    ring = load_keyring(home)
    sealed = keyring.seal_secrets(unlocked.root_key, content)
    replace_synced(home.keyring, keyring.Keyring(ring.slots, _public(signer), sealed).encode())
    return Unlocked(unlocked.root_key, content, DocumentSigner(content.node_key, signer))


def unlock_with_kit(home: Home, kit: keyring.RecoveryKit) -> Unlocked:
    """Return a home's keys by its recovery kit; `KeysError` if it is another node's."""
    ring = load_keyring(home)
    unlocked = _open(ring, keyring.unlock_with_kit(ring, kit))
    if unlocked.signer.signer.facility_key != kit.facility_key.public:
        raise KeysError("the recovery kit is another facility's: use the one of this home")
    return unlocked


def _public(signer: Signer) -> dict[str, bytes]:
    return {
        "facility_key": signer.facility_key,
        "node_cert": signer.node_cert,
        "node_cert_signature": signer.node_cert_signature,
    }


def signer_of(ring: keyring.Keyring) -> Signer:
    """Return the node's certificate in a keyring; `KeysError` if there is none."""
    try:
        public = ring.public
        return Signer(public["facility_key"], public["node_cert"], public["node_cert_signature"])
    except KeyError as exc:
        raise KeysError("the keyring lacks the node's certificate: restore a backup") from exc


def _open(ring: keyring.Keyring, root_key: keyring.RootKey) -> Unlocked:
    content, signer = ring.open(root_key), signer_of(ring)
    if signer.verified_node_key() != content.node_key.public:
        raise KeysError("the keyring's certificate is for another node key")
    return Unlocked(root_key, content, DocumentSigner(content.node_key, signer))


def _write_secret(path: Path, data: bytes) -> None:
    safe_paths.write_file(path, data, 0o400, is_new=True)
