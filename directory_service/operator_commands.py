"""Commands that need the network's or a list key, wherever that is: token, list, revoke."""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from directory_service.client import open_operator_client
from directory_service.issued_invitations import Letter, letters_of, note_letter, noted_letters
from directory_service.operator import (
    OperatorKey,
    find_facility,
    is_late,
    known_epoch,
    known_list,
    list_beside,
    newest,
    read_list,
    replace_all,
    used_by,
    write_new,
)
from node.documents.lists import open_list
from node.documents.network import Membership
from node.domain.ids import InvitationId
from node.domain.names import same_name
from node.domain.network import NetworkList
from node.errors import DocumentError, KeysError, NotFound, UsageError
from node.terminal.output import (
    print_line,
    show_done,
    show_json,
    show_list_place,
    show_table,
    show_time,
)
from node.terminal.passphrases import passphrase_in, prompted

_DAY_SECONDS = 86400
_PASSPHRASE_FILE = f"{__name__}.passphrase-file"


def _keep_file(context: click.Context, _: click.Parameter, value: str | None) -> None:
    context.meta[_PASSPHRASE_FILE] = value


def network_key_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that name a key file, and what opens it."""
    command = click.option(
        "--key-passphrase-file",
        metavar="FILE",
        expose_value=False,
        callback=_keep_file,
        help="A file that holds the key's passphrase. [default: asks for it if the key has one]",
    )(command)
    return click.option(
        "--network-key",
        "key_file",
        required=True,
        metavar="FILE",
        help="The network's key file; it stays with the operator.",
    )(command)


def given_passphrase() -> bytes | None:
    """Return the passphrase in the file that the command names; None for none."""
    return passphrase_in(click.get_current_context().meta.get(_PASSPHRASE_FILE))


def read_key(path: Path) -> OperatorKey:
    """Return the key in a file; its passphrase is asked for where it has one."""

    def ask() -> bytes:
        needed = KeysError(
            f"{path} has a passphrase: give --key-passphrase-file FILE, or run this in a terminal"
        )
        return given_passphrase() or prompted("Passphrase of the key", needed)

    return OperatorKey.read(path, ask)


json_option = click.option("--json", "json_", is_flag=True, help="Print JSON.")


@click.group()
def token() -> None:
    """Invite facilities."""


@token.command("create")
@click.argument("name")
@network_key_option
@click.option("--out", metavar="FILE", help="Write the letter to FILE instead of showing it.")
@json_option
def create_token(name: str, key_file: str, out: str | None, json_: bool) -> None:
    """Make a join letter for one facility: it can be used once, within 72 hours.

    Anyone who has the letter can join in that facility's place: send it over a trusted channel.

    \b
    Examples:
      emix-directory token create "Great Falls Clinic" --network-key /media/usb/montana.key
      emix-directory token create "Great Falls Clinic" --network-key montana.key --out letter
    """
    if not 0 < len(name.strip()) <= 100 or not name.isprintable():
        raise UsageError("a facility's name has 1 to 100 printable characters")
    key, now = read_key(Path(key_file)), time.time()
    letter = key.invite(name.strip(), now, known_epoch(Path(key_file), key, now))
    note_letter(Path(key_file), letter.invitation)  # or a revocation would not cover it
    if out is not None:
        write_new(Path(out), letter.encode().encode() + b"\n", 0o600)
    if json_:
        show_json(
            {
                "id": str(letter.invitation.id),
                "name": name.strip(),
                "network": key.name,
                "expires_seconds": letter.invitation.expires_seconds,
                **({"letter": letter.encode()} if out is None else {"path": out}),
            }
        )
        return
    until = show_time(letter.invitation.expires_seconds)
    print_line(f"For {name.strip()}, into {key.name}, until {until}.", is_error=True)
    print_line(letter.encode() if out is None else f"Wrote {out}. At the facility: emix join {out}")


@token.command("list")
@network_key_option
@click.option("--all", "is_all", is_flag=True, help="Also list used and withdrawn letters.")
@json_option
def list_tokens(key_file: str, is_all: bool, json_: bool) -> None:
    """List unused letters that were made with this key.

    \b
    Examples:
      emix-directory token list --network-key /media/usb/montana.key
      emix-directory token list --network-key /media/usb/montana.key --all --json
    """
    path = Path(key_file)
    found = [
        (letter, state)
        for letter, state in _letter_states(path, read_key(path), time.time())
        if is_all or state in _WAITING
    ]
    if json_:
        show_json(
            [
                {
                    "id": str(letter.id),
                    "name": letter.name,
                    "state": state,
                    "expires_seconds": letter.expires_seconds,
                }
                for letter, state in found
            ]
        )
        return
    show_table(
        ("LETTER", "FOR", "STATE", "USED UNTIL"),
        [(one.id.short(), one.name, state, show_time(one.expires_seconds)) for one, state in found],
        "No letter is unused.",
    )


_WAITING = ("unused", "expired")
_LEAST_CHARACTERS = 6


def _letter_states(path: Path, key: OperatorKey, now: float) -> Iterator[tuple[Letter, str]]:
    """Yield the letters that were made with a key file, and what became of each."""
    with open_operator_client(key) as client:
        encoded, memberships = client.members()
    lists = [one for one in (known_list(path, key, now), _shown_list(key, encoded, now)) if one]
    used = {m.invitation.id for m in memberships} | {i for one in lists for i in one.members}
    revoked = {i for one in lists for i in one.revoked}
    for letter in noted_letters(path):
        if letter.id in revoked:
            yield letter, "revoked" if letter.id in used else "withdrawn"
        elif letter.id in used:
            yield letter, "used"
        else:
            yield letter, "unused" if now < letter.expires_seconds else "expired"


@token.command("withdraw")
@click.argument("letter")
@network_key_option
@json_option
def withdraw(letter: str, key_file: str, json_: bool) -> None:
    """Withdraw unused letters, by a facility's name or by the LETTER that `token list` shows.

    This signs a new list that revokes them and confirms nobody. For a facility that has used its
    letter, use `revoke`.

    \b
    Examples:
      emix-directory token withdraw "Great Falls Clinic" --network-key /media/usb/montana.key
      emix-directory token withdraw k7f3qa2x --network-key /media/usb/montana.key
    """
    path = Path(key_file)
    key = read_key(path)
    if key.certificate:
        raise UsageError("a list key cannot withdraw letters; use the network key file")
    meant = [
        (one, state)
        for one, state in _letter_states(path, key, time.time())
        if same_name(one.name, letter) or _begins(one.id, letter)
    ]
    waiting = {one.id: one for one, state in meant if state in _WAITING}
    if not waiting:
        what = "it was used or withdrawn already" if meant else "none was made with this key"
        raise NotFound(f"no unused letter is called {letter!r}: {what}; see `token list --all`")
    shown, _ = _sign(path, waiting, is_confirming=False)
    if json_:
        withdrawn = [{"id": str(one.id), "name": one.name} for one in waiting.values()]
        show_json({"epoch": shown.epoch, "number": shown.number, "withdrawn": withdrawn})
        return
    for one in waiting.values():
        print_line(f"withdrawn  {one.name}  {one.id.short()}")
    print_line(f"Signed with list {_name(shown)}.")


def _begins(invitation: InvitationId, text: str) -> bool:
    return len(text) >= _LEAST_CHARACTERS and str(invitation).startswith(text.lower())


@click.group("list")
def list_() -> None:
    """Sign the network's list of members and revocations."""


_from_option = click.option(
    "--from",
    "base_file",
    metavar="LIST",
    help="A file with the list to start from. [default: the newest known]",
)


@list_.command()
@network_key_option
@_from_option
@click.option("--preview", is_flag=True, help="Show what would be signed, and sign nothing.")
@json_option
def sign(key_file: str, base_file: str | None, preview: bool, json_: bool) -> None:
    """Sign the next list: it confirms facilities that joined, and is valid for seven days.

    Without a valid list nobody is a member: run this whenever a facility joins and at least
    weekly, with the network key or a list key (`list key`). Check a preview first: a facility
    that it confirms can exchange with all other members.

    \b
    Examples:
      emix-directory list sign --network-key /media/usb/montana.key --preview
      emix-directory list sign --network-key /media/usb/montana.key
    """
    base = Path(base_file) if base_file else None
    shown, added = _sign(Path(key_file), (), base=base, is_preview=preview)
    _show_signed(shown, added, json_=json_, is_preview=preview)


@list_.command()
@network_key_option
@json_option
def members(key_file: str, json_: bool) -> None:
    """List the members that the newest list names.

    \b
    Examples:
      emix-directory list members --network-key /media/usb/montana.key
      emix-directory list members --network-key /etc/emix/list.key --json
    """
    path, now = Path(key_file), time.time()
    key = read_key(path)
    with open_operator_client(key) as client:
        encoded, memberships = client.members()
    lists = [one for one in (known_list(path, key, now), _shown_list(key, encoded, now)) if one]
    if not lists:
        raise NotFound("no list has been signed yet: emix-directory list sign --network-key FILE")
    latest = max(lists, key=lambda one: one.place)
    names = {letter.id: letter.name for letter in noted_letters(path)}
    names |= {m.invitation.id: m.invitation.display_name for m in memberships}
    rows = sorted(
        (names.get(invitation, "(name not known here)"), str(facility), invitation)
        for invitation, facility in latest.members.items()
    )
    if json_:
        show_json(
            {
                "epoch": latest.epoch,
                "number": latest.number,
                "expires_seconds": int(latest.expires_time),
                "members": [
                    {"name": name, "facility_id": facility, "letter": str(invitation)}
                    for name, facility, invitation in rows
                ],
            }
        )
        return
    show_table(("NAME", "FACILITY"), [row[:2] for row in rows], "The newest list has no members.")
    until = show_time(int(latest.expires_time))
    print_line(f"List {_name(latest)}: {len(rows)} members, valid until {until}.")


@list_.command()
@network_key_option
@_from_option
@json_option
def recover(key_file: str, base_file: str | None, json_: bool) -> None:
    """End all list keys after a theft, and overrule whatever was signed with them.

    The new list begins a new epoch. It has the members and revocations of the newest list signed
    with this key file, or of the list named with --from: choose one from before the theft, for
    example the file beside the list key. All its revocations are final; the thief's are undone.
    Then make a new list key with `list key`.

    \b
    Example:
      emix-directory list recover --network-key /media/usb/montana.key --from list.key.list
    """
    path = Path(key_file)
    if read_key(path).certificate:
        raise UsageError("a list key cannot end list keys; use the network key file")
    base = Path(base_file) if base_file else list_beside(path)
    shown, added = _sign(path, (), base=base, begins_epoch=True)
    _show_signed(shown, added, json_=json_)


def _show_signed(
    shown: NetworkList, added: list[Membership], *, json_: bool, is_preview: bool = False
) -> None:
    if json_:
        show_json(
            {
                "is_preview": is_preview,
                "epoch": shown.epoch,
                "number": shown.number,
                "members": len(shown.members),
                "expires_seconds": int(shown.expires_time),
                "confirmed": [str(m.facility_id) for m in added],
            }
        )
        return
    word = "would be confirmed" if is_preview else "confirmed"
    for membership in added:
        print_line(f"{word}  {membership.invitation.display_name}  {membership.facility_id}")
    if is_preview:
        print_line(
            f"Nothing was signed. List {_name(shown)} would have {len(shown.members)} members."
        )
        return
    print_line(
        f"List {_name(shown)}: {len(shown.members)} members, valid until"
        f" {show_time(int(shown.expires_time))}."
    )


@list_.command("key")
@network_key_option
@click.option("--out", required=True, metavar="FILE", help="The new list key's file.")
@click.option("--days", default=365, show_default=True, type=click.IntRange(1, 3650))
@json_option
def make_list_key(key_file: str, out: str, days: int, json_: bool) -> None:
    """Make a key that can only sign lists, for a machine that signs them regularly.

    A thief of this key can confirm anyone who has a letter, and revoke anybody, until you run
    `list recover`.

    \b
    Example:
      emix-directory list key --network-key /media/usb/montana.key --out list.key --days 365
    """
    key, now = read_key(Path(key_file)), time.time()
    epoch = known_epoch(Path(key_file), key, now)
    expires = now + days * _DAY_SECONDS
    key.list_key(expires, epoch).write(Path(out))
    show_done(
        {"path": out, "epoch": epoch, "expires_seconds": int(expires)},
        f"Wrote {out}: emix-directory list sign --network-key {out}",
        json_=json_,
    )


@click.group("key")
def key_group() -> None:
    """Protect a network key or list key file."""


@key_group.command("protect")
@network_key_option
@click.option("--new-passphrase-file", metavar="FILE", help="A file that holds the new passphrase.")
@json_option
def protect(key_file: str, new_passphrase_file: str | None, json_: bool) -> None:
    """Set a key file's passphrase, or replace it.

    Nobody can recover a lost passphrase, and the file is useless without it. Earlier copies of
    the file open as before: destroy them, or protect them too.

    \b
    Examples:
      emix-directory key protect --network-key /media/usb/montana.key
      emix-directory key protect --network-key list.key --new-passphrase-file secret
    """
    path = Path(key_file)
    key = read_key(path)
    say = UsageError("the new passphrase is needed: --new-passphrase-file FILE")
    new = passphrase_in(new_passphrase_file)
    if new is None:
        new = prompted("New passphrase of the key", say, is_new=True)
    replace_all({path: key.encode(new)})
    text = f"{path} opens with its new passphrase only."
    show_done({"path": str(path)}, text, json_=json_)


@click.command()
@click.argument("facility")
@network_key_option
@json_option
def revoke(facility: str, key_file: str, json_: bool) -> None:
    """Revoke a facility's membership, by its name, Facility ID or the ID's beginning.

    Nodes learn of it within a minute, and keep it for good: to admit the facility again, make
    a new join letter. This confirms no waiting facility; `list sign` does.

    \b
    Example:
      emix-directory revoke "Great Falls Clinic" --network-key /media/usb/montana.key
    """
    path = Path(key_file)
    key = read_key(path)
    if key.certificate:
        raise UsageError("a list key cannot revoke; use the network key file")
    now = time.time()
    with open_operator_client(key) as client:
        encoded, memberships = client.members()
    # The directory might withhold memberships, so the members of our own last list count too.
    lists = [known_list(path, key, now), _shown_list(key, encoded, now)]
    listed = [pair for one in lists if one is not None for pair in one.members.items()]
    gone = {i for one in lists if one is not None for i in one.revoked}
    standing = [m for m in memberships if m.invitation.id not in gone]
    found = find_facility(standing or memberships, [f for _, f in listed], facility)
    used = {m.invitation.id: m for m in memberships if m.facility_id == found}
    names = sorted({m.invitation.display_name for m in used.values()})
    unused = letters_of(path, set(names)) - {m.invitation.id for m in memberships}
    revoked = {*used, *unused, *(i for i, f in listed if f == found)}
    shown, _ = _sign(path, revoked, is_confirming=False)
    show_done(
        {
            "epoch": shown.epoch,
            "number": shown.number,
            "facility_id": str(found),
            "names": names,
            "letters": sorted(map(str, revoked)),
        },
        f"Revoked {' / '.join(names) or found} with list {_name(shown)}.",
        json_=json_,
    )


def _name(shown: NetworkList) -> str:
    return show_list_place(*shown.place)


def _sign(
    path: Path,
    revoked: Iterable[InvitationId],
    *,
    base: Path | None = None,
    begins_epoch: bool = False,
    is_confirming: bool = True,
    is_preview: bool = False,
) -> tuple[NetworkList, list[Membership]]:
    """Sign and publish the next list; return it, and the memberships that it confirms.

    Args:
        path: The key's file.
        revoked: The invitations that it revokes.
        base: The list on which it is based; by default the newest.
        begins_epoch: Whether it begins an epoch, which ends all list keys and what they signed.
        is_confirming: Whether it confirms waiting facilities. Use it only if a person is shown
            which ones.
        is_preview: Whether it is neither kept nor published.
    """
    key, now = read_key(path), time.time()
    with open_operator_client(key) as client:
        encoded, memberships = client.members()
        theirs = _shown_list(key, encoded, now)
        if base is None:
            latest, seen = _latest(path, key, theirs, now)
        else:
            latest, seen = _chosen(path, key, base, now)
        encoded = key.next_list(
            latest,
            memberships if is_confirming else (),
            {*seen, *revoked},
            now,
            above=[one for one in (known_list(path, key, now), theirs) if one is not None],
            begins_epoch=begins_epoch,
        )
        # Kept before it is published: if a directory accepts it but reports a failure, the next
        # list must still contain the revocations of this one.
        if not is_preview:
            replace_all({list_beside(path): encoded}, 0o600)
            client.publish(encoded)
    shown = open_list(encoded, key.network_key, now)
    _warn_of_members(memberships, shown, now)
    if base is not None and theirs is not None:
        _warn_of_overruled(memberships, theirs, shown)
    listed = latest.members if latest else {}
    added = [
        m
        for m in memberships
        if m.invitation.id not in listed and shown.members.get(m.invitation.id) == m.facility_id
    ]
    return shown, added


def _shown_list(key: OperatorKey, encoded: bytes, now: float) -> NetworkList | None:
    """Return the list that the directory shows; None where it shows none of this network."""
    try:
        return open_list(encoded, key.network_key, now) if encoded else None
    except DocumentError as exc:
        _warn(f"the directory sent a list that this network did not sign ({exc}): investigate.")
        return None


def _chosen(
    path: Path, key: OperatorKey, base: Path, now: float
) -> tuple[NetworkList, set[InvitationId]]:
    """Return the list in a file, and its revocations with those that are final anyway."""
    _, latest = read_list(base, key, now)
    known = known_list(path, key, now)
    return latest, {*latest.revoked, *(known.final if known else ())}


def _latest(
    path: Path, key: OperatorKey, theirs: NetworkList | None, now: float
) -> tuple[NetworkList | None, set[InvitationId]]:
    """Return the newest list there is, and all revocations; warn of what is odd about them."""
    known = known_list(path, key, now)
    latest, is_older = newest(known, theirs, now)
    if known is None and theirs is not None:
        _warn(
            f"{list_beside(path)} is missing, so the directory's list cannot be checked and is used"
            " as the newest. If another machine signs, copy the file from there."
        )
    if is_older:
        _warn(
            "the directory has an older list than the newest signed here. It was restored from a"
            " backup, or somebody broke into it."
        )
    if latest is None and not key.certificate:
        print_line(
            "No earlier list is known: this becomes the network's first. If there was one,"
            f" stop here: restore {list_beside(path)}, or wait until a node has reconnected.",
            is_error=True,
        )
    if latest is None:
        return None, set()
    # Those of an earlier epoch end with it, unless the network key has signed them.
    lists = [one for one in (known, theirs) if one is not None]
    seen = {i for one in lists for i in (one.revoked if one.epoch == latest.epoch else one.final)}
    if seen - latest.revoked:
        _warn(
            "the newest list lacks revocations that an earlier one had. The next list contains them"
            " again. Somebody signed the newest one without them: find out who."
        )
    return latest, seen


def _warn_of_overruled(
    memberships: Iterable[Membership], theirs: NetworkList, shown: NetworkList
) -> None:
    """Warn of entries in the directory's list that the new one lacks: some may have been right."""
    names = {m.invitation.id: m.invitation.display_name for m in memberships}

    def named(invitations: Iterable[InvitationId]) -> str:
        return ", ".join(sorted(names.get(i, i.short()) for i in invitations))

    if lost := theirs.members.keys() - shown.members.keys() - shown.revoked:
        _warn(
            f"the directory's list named {len(lost)} members that the new one does not:"
            f" {named(lost)}. Send new letters to the legitimate ones."
        )
    if undone := theirs.revoked - shown.revoked:
        _warn(
            f"the directory's list revoked {len(undone)} invitations that the new one does not:"
            f" {named(undone)}. Revoke again those that must stay revoked."
        )


def _warn_of_members(memberships: Iterable[Membership], shown: NetworkList, now: float) -> None:
    """Warn of letters in wrong hands: used twice, another's, or long after their time."""
    for used, several in used_by(memberships).items():
        if len(several) > 1:
            _warn(
                f"one invitation ({used.short()}) was used by"
                f" {', '.join(sorted(map(str, several)))}. None is newly confirmed. An intact"
                " directory refuses the second use: check whether somebody broke into it."
            )
    for membership in memberships:
        facility, invitation = membership.facility_id, membership.invitation
        listed = shown.members.get(invitation.id)
        if listed not in (None, facility):
            _warn(
                f"{facility} has used the invitation of {invitation.display_name}, which is"
                " another facility's. It is not confirmed. The letter was leaked: revoke it, and"
                " make a new one."
            )
        if listed is None and invitation.id not in shown.revoked and is_late(membership, now):
            _warn(
                f"{facility} joined with a letter for {invitation.display_name} that expired"
                f" {show_time(invitation.expires_seconds)}. It is not confirmed. If it is that"
                " facility, make a new letter."
            )


def _warn(text: str) -> None:
    print_line(f"WARNING: {text}", is_error=True)


COMMANDS = (token, list_, key_group, revoke)
