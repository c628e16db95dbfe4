"""The join letters that were made with a key file, noted beside it: a revocation covers them all.

Otherwise a revoked facility could join again with another letter that was never used.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from directory_service.operator import replace_all
from node.documents.network import Invitation
from node.domain.ids import InvitationId
from node.domain.names import same_name
from node.errors import ConfigError
from node.system import safe_paths

_MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class Letter:
    """A letter that was made: for whom, and until when it can be used, in seconds since 1970."""

    id: InvitationId
    name: str
    expires_seconds: int


def letters_beside(path: Path) -> Path:
    """Return where the letters that were made with a key file are noted."""
    return path.with_name(path.name + ".letters")


def note_letter(path: Path, invitation: Invitation) -> None:
    """Note a letter, durably; it holds no secret.

    Raises:
        ConfigError: it cannot be written, or what is there is damaged.
    """
    made = Letter(invitation.id, invitation.display_name, invitation.expires_seconds)
    noted = [
        {"id": str(one.id), "name": one.name, "expires": one.expires_seconds}
        for one in (*noted_letters(path), made)
    ]
    data = "".join(json.dumps(one) + "\n" for one in noted)
    replace_all({letters_beside(path): data.encode()}, 0o600)


def letters_of(path: Path, names: set[str]) -> set[InvitationId]:
    """Return all letters that were ever made for facilities of some names; raises as above."""
    return {
        letter.id
        for letter in noted_letters(path)
        if any(same_name(letter.name, name) for name in names)
    }


def noted_letters(path: Path) -> list[Letter]:
    """Return all letters that were ever made with a key file, in order; raises as above."""
    beside = letters_beside(path)
    try:
        text = safe_paths.read_file(beside, _MOST_BYTES) if beside.exists() else b""
        lines = text.decode().splitlines()
        return [_letter(json.loads(line)) for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ConfigError(f"{beside} cannot be read or is damaged: restore a copy") from exc


def _letter(noted: Any) -> Letter:
    return Letter(InvitationId.parse(noted["id"]), str(noted["name"]), int(noted["expires"]))
