"""New keys for a home in which no node runs: node key, its certificate, seal key, epoch key.

Each is a single replacement of the keyring, or can be interrupted anywhere: it is recorded in the
audit log before it begins, and the same command completes it.
"""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from node.app.config import load_config
from node.app.home import (
    Home,
    Unlocked,
    load_keyring,
    save_identity,
    save_secrets,
    signer_of,
    unlock,
    unlock_with_kit,
)
from node.app.opening import open_home_store
from node.crypto.certificates import make_tls_identity
from node.crypto.keyring import RecoveryKit, Secrets
from node.crypto.keys import SealKey
from node.crypto.signing import SigningKey, node_id
from node.documents.delivery import MAX_STANDING_SECONDS
from node.documents.signed import MAX_CLOCK_SKEW_SECONDS, Signer, certify_node
from node.domain.actors import Actor
from node.domain.ids import NodeId
from node.errors import KeysError, StoreError
from node.store import audit_rows, transfer_rows
from node.store.context import StoreContext
from node.store.removal import finish_removals, sweep
from node.store.repair import find_orphans
from node.store.rewrapping import epochs_in_use, rewrap
from node.system import clock


@dataclass(frozen=True)
class Rotated:
    """What a rotation of the epoch did."""

    epoch: int
    packages: int
    destroyed: Sequence[int]


@dataclass(frozen=True)
class KeyFacts:
    """The public facts about a home's keys."""

    node: NodeId
    generation: int
    expires_seconds: int


def key_facts(home: Home) -> KeyFacts:
    """Return what the keyring says in the clear; no key is needed."""
    cert = signer_of(load_keyring(home)).verified()
    return KeyFacts(node_id(cert.node_key), cert.generation, cert.expires_seconds)


# -- the node key -----------------------------------------------------------------------------


def replace_node(
    home: Home, kit: RecoveryKit, actor: Actor, *, is_clock_right: bool = False
) -> KeyFacts:
    """Give a home a new node key, TLS key and seal key in place of the old ones.

    Peers and directories refuse the old key once they have seen the new one; the node presents it
    at its next start.

    Args:
        home: The home; no node may run in it.
        kit: The facility's recovery kit.
        actor: Who asked.
        is_clock_right: A person has checked the clock, although the node doubts it.

    Raises:
        KeysError: the recovery kit is another node's, or a clock is or was wrong.
        StoreLocked: the node runs.
    """
    with home.locked():
        old = unlock_with_kit(home, kit)
        with _store(home, old) as context:
            now, key = _certain_now(is_clock_right=is_clock_right), SigningKey.new()
            last = old.signer.signer.verified().generation
            generation = _next_generation(last, now, is_clock_right=is_clock_right)
            signer = certify_node(kit.facility_key, key, now, generation=generation)
            content = replace(
                old.secrets,
                node_key=key,
                seal_keys=_with_new_seal_key(old.secrets.seal_keys),
                tls=(make_tls_identity(node_id(key.public), now),),
            )
            facts: dict[str, object] = {"node": str(node_id(key.public)), "generation": generation}
            _append(context, "node.replaced", facts, actor)
        save_identity(home, old, signer, content)
    return key_facts(home)


def _certain_now(*, is_clock_right: bool) -> float:
    """Return the time for documents that others verify; the store is open.

    Raises:
        KeysError: the clock is suspect, and no person has confirmed it.
    """
    if is_clock_right:
        clock.CLOCK.confirm()
    elif doubt := clock.CLOCK.doubt:
        raise KeysError(
            f"{doubt}: set this machine's clock; if it is right (the node was off for days, say),"
            " add --clock-is-right"
        )
    return clock.now()


def _next_generation(last: int, now: float, *, is_clock_right: bool) -> int:
    """Return the generation of a new node key; one to come would be refused by everybody."""
    if last < int(now + MAX_CLOCK_SKEW_SECONDS):
        return max(last + 1, int(now))
    if is_clock_right:
        return int(now)  # no peer and no directory has taken the last one: it is to come
    raise KeysError(
        "the present node key was made in the future: set this machine's clock. If it is right,"
        " the clock was wrong when the key was made: add --clock-is-right"
    )


def renew_node(
    home: Home, kit: RecoveryKit, actor: Actor, *, is_clock_right: bool = False
) -> KeyFacts:
    """Renew the facility's certificate for the node key; raises as `replace_node`."""
    with home.locked():
        old = unlock_with_kit(home, kit)
        generation = old.signer.signer.verified().generation
        with _store(home, old) as context:
            now = _certain_now(is_clock_right=is_clock_right)
            signer = certify_node(
                kit.facility_key, old.secrets.node_key, now, generation=generation
            )
            _append_renewal(context, signer, actor)
        save_identity(home, old, signer, old.secrets)
    return key_facts(home)


def take_certificate(
    home: Home, passphrase: bytes | None, signer: Signer, actor: Actor
) -> KeyFacts:
    """Take a certificate that was made where the recovery kit is.

    Raises:
        KeysError: it is not for this node key, or older than the present one.
        BadSignature: it is no certificate of this facility.
    """
    with home.locked():
        old = unlock(home, passphrase)
        cert, present = signer.verified(), old.signer.signer.verified()
        if (signer.facility_id, cert.node_key) != (old.signer.facility_id, present.node_key):
            raise KeysError("that certificate is for another node key")
        if cert.generation != present.generation:
            raise KeysError("that certificate is not a renewal: its key has another generation")
        if cert.issued_seconds < present.issued_seconds:
            raise KeysError("that certificate is older than the present one")
        with _store(home, old) as context:
            _append_renewal(context, signer, actor)
        save_identity(home, old, signer, old.secrets)
    return key_facts(home)


def _append_renewal(context: StoreContext, signer: Signer, actor: Actor) -> None:
    facts: dict[str, object] = {"expires": signer.verified().expires_seconds}
    _append(context, "node.renewed", facts, actor)


# -- seal keys --------------------------------------------------------------------------------


def rotate_seal(home: Home, passphrase: bytes | None, actor: Actor) -> tuple[int, int]:
    """Make a new seal key; return how many older ones are kept, and how many were destroyed.

    An older one is kept for as long as a delivery can stand that was sealed to it.
    """
    with home.locked():
        old = unlock(home, passphrase)
        with _store(home, old) as context:
            seal_keys = _with_new_seal_key(old.secrets.seal_keys)
            destroyed = len(old.secrets.seal_keys) + 1 - len(seal_keys)
            facts: dict[str, object] = {"kept": len(seal_keys) - 1, "destroyed": destroyed}
            _append(context, "keys.seal-rotated", facts, actor)
        save_secrets(home, old, replace(old.secrets, seal_keys=seal_keys))
    return len(seal_keys) - 1, destroyed


def _with_new_seal_key(seal_keys: Sequence[SealKey]) -> tuple[SealKey, ...]:
    """Add a new seal key, retire the present one, and leave out expired ones.

    A key is expired if no standing delivery can be sealed to it. Of the trusted time and the wall
    clock, the later retires a key and the earlier destroys it. So no key is destroyed too early,
    whichever time is wrong. The store is open.
    """
    moments = clock.now(), clock.CLOCK.wall()
    retired = [SealKey(k.private, k.retired_seconds or int(max(moments))) for k in seal_keys]
    stands = MAX_STANDING_SECONDS + MAX_CLOCK_SKEW_SECONDS
    kept = [key for key in retired if min(moments) < key.retired_seconds + stands]
    return SealKey.new(), *kept


# -- epochs -----------------------------------------------------------------------------------


def rotate_epoch(home: Home, passphrase: bytes | None, actor: Actor) -> Rotated:
    """Make a new epoch key, move every package to it, and destroy all older ones.

    After a kill in between, every key that a package needs is still there; running it again
    completes it.

    Raises:
        StoreError: some package could not be moved; nothing was destroyed.
    """
    return _rotate(home, passphrase, actor, shreds=False)


def shred(home: Home, passphrase: bytes | None, actor: Actor) -> Rotated:
    """Destroy all keys that open deleted data.

    Pending removals are completed, and the remaining packages move to a new epoch. Free pages and
    the log of the database are overwritten. Then the older epoch keys are destroyed.

    Raises:
        StoreError: some package could not be moved; nothing was destroyed.
    """
    return _rotate(home, passphrase, actor, shreds=True)


def _rotate(home: Home, passphrase: bytes | None, actor: Actor, *, shreds: bool) -> Rotated:
    with home.locked():
        unlocked = unlock(home, passphrase)
        with _store(home, unlocked) as context:
            _complete_removals(context, sweeps=shreds)
        older = unlocked.secrets
        # Always a new one: what was deleted since an interrupted rotation is under its epoch key.
        epoch = older.epoch + 1
        epochs = {**older.epochs, epoch: secrets.token_bytes(32)}
        unlocked = save_secrets(home, unlocked, replace(older, epochs=epochs))
        with _store(home, unlocked) as context:
            _append(context, "keys.epoch-begun", {"epoch": epoch}, actor)
            packages = rewrap(context)
            in_use = epochs_in_use(context) - {epoch}
            if in_use:
                raise StoreError(f"packages still use epochs {sorted(in_use)}; run this again")
            if shreds:
                context.database.write_sync(transfer_rows.forget_sealed_keys)
                context.database.compact()
            destroyed = sorted(older.epochs)
            save_secrets(home, unlocked, _only(unlocked.secrets, epoch))
            facts = {"epoch": epoch, "packages": packages, "destroyed": destroyed}
            kind = "keys.shredded" if shreds else "keys.epoch-rotated"
            _append(context, kind, facts, actor)
    return Rotated(epoch, packages, destroyed)


def _only(content: Secrets, epoch: int) -> Secrets:
    return replace(content, epochs={epoch: content.epochs[epoch]})


def _complete_removals(context: StoreContext, *, sweeps: bool) -> None:
    finish_removals(context)
    orphans = find_orphans(context)
    if orphans:
        raise StoreError(
            f"the database lacks {len(orphans)} envelopes: run `emix store repair`, then this again"
        )
    if sweeps:
        sweep(context)


# -- the store --------------------------------------------------------------------------------


@contextmanager
def _store(home: Home, unlocked: Unlocked) -> Iterator[StoreContext]:
    config = load_config(home.config)
    context = open_home_store(home, config, unlocked)
    try:
        yield context
    finally:
        context.close()


def _append(context: StoreContext, kind: str, facts: dict[str, object], actor: Actor) -> None:
    """Record a step before it is done: after a kill, the log may have more than was done."""
    context.database.write_sync(lambda db: audit_rows.append(db, kind, facts, actor))
