"""The operator's side: the network's key file, and what is signed with it.

A key file is kept by the operator, never on the directory. A *list key* file, which the network key
certified for a limited time, can sign only lists: it is for the machine that does so weekly. The
newest list that was signed with a key file is kept beside it, so that a directory cannot undo a
revocation by showing an older list.

A list key is valid for one epoch of the lists. If a list key is stolen, the network key begins the
next epoch: that ends all list keys, and overrules everything they signed.
"""

import base64
import binascii
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from node.crypto.certificates import TlsIdentity, make_directory_root
from node.crypto.passphrases import lock, unlock
from node.crypto.signing import SigningKey, network_id
from node.documents.identity import is_endpoint
from node.documents.lists import (
    FIRST_EPOCH,
    MAX_LIST_BYTES,
    delegate_lists,
    open_list,
    open_list_key,
    sign_list,
)
from node.documents.network import JoinLetter, Membership, invite
from node.domain.ids import LEAST_CHARACTERS, FacilityId, InvitationId, NetworkId
from node.domain.names import (
    alike,
    beginning_of_id,
    facilities_text,
    looks_like_id,
    same_name,
    several_named,
)
from node.domain.network import ListPlace, NetworkList
from node.errors import ConfigError, Conflict, DocumentError, KeysError, NotFound, UsageError
from node.system import safe_paths

CONFIRM_SECONDS = 7 * 86400
"""How long after a letter's expiry a facility that used it can still be confirmed. The joining time
is stated by the letter's holder, and the membership is reported by the directory. So without this
limit a stray letter could make a member years later."""

KEY_FORMAT = "emix-network-key/1"
LIST_KEY_FORMAT = "emix-list-key/1"
_LOCKED = "emix/network-key/v1"
_MOST_KEY_BYTES = 64 * 1024


@dataclass(frozen=True)
class OperatorKey:
    """A key file.

    Attributes:
        key: The network key, or a list key.
        certificate: The network's certificate for a list key; empty for the network key.
        endpoints: Where the directory is reached.
        root: Signs the directory's TLS certificates; None in a list key file.
    """

    name: str
    key: SigningKey = field(repr=False)
    certificate: bytes = field(repr=False)
    network_key: bytes
    endpoints: tuple[str, ...]
    root_certificate: bytes = field(repr=False)
    root: TlsIdentity | None = field(repr=False)

    @property
    def network(self) -> NetworkId:
        """The network."""
        return network_id(self.network_key)

    @classmethod
    def new(cls, name: str, endpoints: tuple[str, ...], now: float) -> Self:
        """Return the key of a new network."""
        key, root = SigningKey.new(), make_directory_root(now)
        return cls(name, key, b"", key.public, endpoints, root.certificate_der, root)

    def list_key(self, expires: float, epoch: int = FIRST_EPOCH) -> "OperatorKey":
        """Return a new key that may sign the lists of an epoch until then.

        Raises:
            UsageError: this is not the network key.
        """
        self._whole()
        key = SigningKey.new()
        certificate = delegate_lists(self.key, key.public, expires, epoch=epoch)
        return OperatorKey(
            self.name,
            key,
            certificate,
            self.network_key,
            self.endpoints,
            self.root_certificate,
            None,
        )

    def write(self, path: Path, passphrase: bytes | None = None) -> None:
        """Write the file, readable by its owner only; with a passphrase, that opens it.

        Raises:
            ConfigError: it exists, or cannot be written.
            KeysError: the passphrase is too short.
        """
        write_new(path, self.encode(passphrase))

    def encode(self, passphrase: bytes | None = None) -> bytes:
        """Return the file's bytes; `KeysError` if the passphrase is too short."""
        kept: dict[str, Any] = {"secret": _b64(self.key.seed)}
        if self.root is not None:
            kept["root_secret"] = self.root.private_pem.decode()
        if passphrase is not None:
            kept = {"locked": lock(json.dumps(kept).encode(), _LOCKED, passphrase)}
        value = {
            "format": LIST_KEY_FORMAT if self.certificate else KEY_FORMAT,
            "name": self.name,
            "certificate": _b64(self.certificate),
            "network_key": _b64(self.network_key),
            "endpoints": list(self.endpoints),
            "root_certificate": _b64(self.root_certificate),
            **kept,
        }
        if self.root is not None:
            value["root_certificate_pem"] = self.root.certificate_pem.decode()
        return json.dumps(value, indent=1).encode()

    @classmethod
    def read(cls, path: Path, ask: Callable[[], bytes] | None = None) -> Self:
        """Return the key in a file.

        Args:
            path: The file.
            ask: Returns the passphrase, where one is needed.

        Raises:
            ConfigError: it cannot be read, or is no key file.
            KeysError: it needs a passphrase, and that is not the one.
        """
        try:
            value: Any = json.loads(safe_paths.read_file(path, _MOST_KEY_BYTES))
            if value["format"] not in (KEY_FORMAT, LIST_KEY_FORMAT):
                raise ConfigError(f"{path} is a key file of an unknown format: upgrade emix")
            if "locked" in value:
                if ask is None:
                    raise KeysError(f"{path} has a passphrase, and none was given")
                value |= json.loads(unlock(value["locked"], _LOCKED, ask()))
            root = None
            if "root_secret" in value:
                root = TlsIdentity(
                    value["root_secret"].encode(), value["root_certificate_pem"].encode()
                )
            found = cls(
                name=str(value["name"]),
                key=SigningKey(_unb64(value["secret"])),
                certificate=_unb64(value["certificate"]),
                network_key=_unb64(value["network_key"]),
                endpoints=tuple(map(str, value["endpoints"])),
                root_certificate=_unb64(value["root_certificate"]),
                root=root,
            )
        except OSError as exc:
            raise ConfigError(f"{path} cannot be read ({exc.strerror})") from exc
        except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as exc:
            raise ConfigError(f"{path} is not a network key file, or is damaged") from exc
        if not found.certificate and found.key.public != found.network_key:
            raise ConfigError(f"{path} is damaged: its keys do not match; use another copy of it")
        return found

    # -- what is signed -----------------------------------------------------------------------

    def invite(self, display_name: str, now: float, epoch: int = FIRST_EPOCH) -> JoinLetter:
        """Return a join letter for one facility, which takes no list of an earlier epoch.

        Raises:
            UsageError: without the network key, or for a name that looks like a Facility ID.
        """
        self._whole()
        if looks_like_id(display_name):
            raise UsageError("a facility's name must not look like a Facility ID")
        invitation, token = invite(self.key, display_name, now, list_epoch=epoch)
        return JoinLetter(
            invitation, token, self.network_key, self.name, self.endpoints, self.root_certificate
        )

    def next_list(
        self,
        latest: NetworkList | None,
        memberships: Iterable[Membership],
        revoked: Iterable[InvitationId],
        now: float,
        *,
        above: Iterable[NetworkList] = (),
        begins_epoch: bool = False,
    ) -> bytes:
        """Return the next list.

        Listed members stay. A facility that is the only user of its invitation is added, until
        seven days after the invitation's expiry.

        Args:
            latest: The list before, whose members and revocations stay.
            memberships: The memberships that facilities have shown to the directory.
            revoked: The invitations that are revoked now.
            now: The present time.
            above: Other known lists, than which the next list must be newer, too.
            begins_epoch: Whether it begins an epoch: that ends all list keys, and overrules all
                present lists.

        Raises:
            ConfigError: this is a list key that has expired or was revoked.
            UsageError: this is a list key, and a new epoch needs the network key.
        """
        known = [one for one in (latest, *above) if one is not None]
        epoch, number = self._next_place(known, now, begins_epoch=begins_epoch)
        members: dict[InvitationId, FacilityId] = dict(latest.members) if latest else {}
        in_time = (m for m in memberships if not is_late(m, now))
        for invitation, facilities in used_by(in_time).items():
            if len(facilities) == 1:  # of several, a person has to find out who is right
                members.setdefault(invitation, next(iter(facilities)))
        all_revoked = (latest.revoked if latest else frozenset()) | frozenset(revoked)
        kept = {i: f for i, f in members.items() if i not in all_revoked}
        return sign_list(
            self.key,
            self.network,
            number,
            kept,
            all_revoked,
            now,
            certificate=self.certificate,
            epoch=epoch,
        )

    def _next_place(
        self, known: Sequence[NetworkList], now: float, *, begins_epoch: bool
    ) -> ListPlace:
        latest = max(known, key=lambda one: one.place, default=None)
        epoch = latest.epoch if latest else FIRST_EPOCH
        if begins_epoch:
            self._whole()
            return epoch + 1, 1
        if self.certificate:
            try:
                key = self.network_key
                _, epoch = open_list_key(self.certificate, key, now, latest=latest)
            except DocumentError as exc:
                raise ConfigError(
                    f"{exc}; make a new one: emix-directory list key --network-key FILE --out NEW"
                ) from exc
        return epoch, latest.number + 1 if latest and latest.epoch == epoch else 1

    def _whole(self) -> None:
        if self.certificate:
            raise UsageError("a list key can only sign lists; use the network key file")


def is_late(membership: Membership, now: float) -> bool:
    """Whether a membership can be confirmed no more, because its letter ended long ago."""
    return now >= membership.invitation.expires_seconds + CONFIRM_SECONDS


def newest(
    ours: NetworkList | None, theirs: NetworkList | None, now: float
) -> tuple[NetworkList | None, bool]:
    """Return the newest list, and whether the directory shows an older one than is known here.

    Raises:
        Conflict: the directory shows another list at the same place as ours, or a later one that
            the thief of a list key could have signed: a person has to find out.
    """
    if theirs is None:
        return ours, ours is not None
    if ours is not None and theirs.digest == ours.digest:
        return ours, False
    if ours is not None and theirs.place < ours.place:
        return ours, True
    what = f"list {theirs.number} of epoch {theirs.epoch}"
    if ours is not None and theirs.place == ours.place:
        raise Conflict(
            f"the directory has a different {what} than was signed here; find out who signed it"
            " before you sign the next one. If a list key was stolen: emix-directory list recover"
        )
    if theirs.list_key_expires is not None and now >= theirs.list_key_expires:
        raise Conflict(
            f"the directory has {what}, signed by a list key that has expired, so it is unknown"
            " when it was signed. If you find that list beside the key's file, name it with --from;"
            " otherwise the key was stolen: emix-directory list recover"
        )
    return theirs, False


def list_beside(path: Path) -> Path:
    """Return where the newest list is kept that was signed with a key file."""
    return path.with_name(path.name + ".list")


def known_epoch(path: Path, key: OperatorKey, now: float) -> int:
    """Return the epoch of the newest list that was signed with a key file; raises as below."""
    known = known_list(path, key, now)
    return known.epoch if known else FIRST_EPOCH


def known_list(path: Path, key: OperatorKey, now: float) -> NetworkList | None:
    """Return the newest list that was signed with a key file; None before the first.

    Raises:
        ConfigError: what is kept there is no list of that network.
    """
    encoded = signed_list(path, key, now)
    return open_list(encoded, key.network_key, now) if encoded else None


def signed_list(path: Path, key: OperatorKey, now: float) -> bytes:
    """Return the newest list that was signed with a key file, as signed; empty before the first.

    Raises:
        ConfigError: what is kept there is no list of that network.
    """
    beside = list_beside(path)
    if not beside.exists():
        return b""
    encoded, _ = read_list(beside, key, now)
    return encoded


def read_list(path: Path, key: OperatorKey, now: float) -> tuple[bytes, NetworkList]:
    """Return the list in a file, as it was signed and as it says; it may have expired.

    Raises:
        ConfigError: the file cannot be read, or holds no list of that network.
    """
    try:
        encoded = safe_paths.read_file(path, MAX_LIST_BYTES)
        return encoded, open_list(encoded, key.network_key, now)
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read ({exc.strerror})") from exc
    except DocumentError as exc:
        raise ConfigError(f"{path} is damaged, or another network's: {exc}") from exc


def used_by(memberships: Iterable[Membership]) -> dict[InvitationId, set[FacilityId]]:
    """Return which facilities have used each invitation; more than one is the directory's fault."""
    found: dict[InvitationId, set[FacilityId]] = {}
    for membership in memberships:
        found.setdefault(membership.invitation.id, set()).add(membership.facility_id)
    return found


def find_facility(
    memberships: Iterable[Membership], listed: Iterable[FacilityId], text: str
) -> FacilityId:
    """Return the facility that an operator means by a Facility ID, its beginning, or a name.

    Args:
        memberships: Those that the directory has; they contain the names.
        listed: The facilities in a list. A directory that has lost data has fewer memberships.
        text: The text that was typed.

    Raises:
        NotFound: no facility matches.
        Conflict: several match.
    """
    beginning = beginning_of_id(text)
    all_of = list(memberships)
    known = {m.facility_id for m in all_of} | set(listed)
    found = {f for f in known if beginning and str(f).replace("-", "").startswith(beginning)}
    if not found and not looks_like_id(text):  # an ID goes first, and is never a name
        found = {m.facility_id for m in all_of if alike(m.invitation.display_name, text)}
        names = {m.invitation.display_name for m in all_of if m.facility_id in found}
        if len(found) == 1 and not any(same_name(name, text) for name in names):
            raise NotFound(
                "no facility has this name, but one has a name that looks like it; if you mean"
                f" that one, use its Facility ID: {facilities_text(_names_of(all_of, found))}"
            )
    if not found:
        raise NotFound(
            f"no facility is called {text!r}; `emix-directory facilities` lists them. For one that"
            " has not reconnected since the database was lost, give at least"
            f" {LEAST_CHARACTERS} characters of its Facility ID"
        )
    if len(found) > 1:
        raise several_named(_names_of(all_of, found))
    return found.pop()


def _names_of(memberships: Iterable[Membership], found: set[FacilityId]) -> dict[FacilityId, str]:
    """Return the facilities that were found, each with a name that it has."""
    names = {m.facility_id: m.invitation.display_name for m in memberships}
    return {facility: names.get(facility, "") for facility in found}


def read_endpoints(texts: Iterable[str]) -> tuple[str, ...]:
    """Return addresses; `UsageError` if one is none."""
    found = tuple(texts)
    if not found or not all(map(is_endpoint, found)):
        raise UsageError("an endpoint is HOST:PORT, as nodes reach the directory")
    return found


def write_new(path: Path, data: bytes, mode: int = 0o400) -> None:
    """Write a file that does not exist yet, durably, for its owner only; `ConfigError` if not."""
    safe_paths.write_file(path, data, mode, is_new=True)


def replace_all(files: Mapping[Path, bytes], mode: int = 0o400) -> None:
    """Put new content in place of files of one folder, durably; all is written before any."""
    for path, data in files.items():
        safe_paths.real_folder(path.parent)
        temporary = path.with_name(path.name + ".new")
        temporary.unlink(missing_ok=True)
        write_new(temporary, data, mode)
    try:
        for path in files:
            path.with_name(path.name + ".new").rename(path)
            sync_folder(path.parent)
    except OSError as exc:
        raise ConfigError(f"{path} cannot be replaced ({exc.strerror})") from exc


def sync_folder(folder: Path) -> None:
    """Make what was made, renamed or removed in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _unb64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
