"""The letters that were made with a key file: noted beside it, so that a revocation covers all.

A facility that is revoked and has another letter, never used, would come back with it.
"""

import json
from pathlib import Path

from directory_service.operator import replace_all
from node import safe_paths
from node.documents.network import Invitation
from node.domain.ids import InvitationId
from node.domain.names import same_name
from node.errors import ConfigError

_MOST_BYTES = 64 << 20


def letters_beside(path: Path) -> Path:
    """Return where the letters that were made with a key file are noted."""
    return path.with_name(path.name + ".letters")


def note_letter(path: Path, invitation: Invitation) -> None:
    """Note a letter, durably; it holds no secret.

    Raises:
        ConfigError: it cannot be written, or what is there is damaged.
    """
    noted = [*_read(path), {"id": str(invitation.id), "name": invitation.display_name}]
    data = "".join(json.dumps(one) + "\n" for one in noted)
    replace_all({letters_beside(path): data.encode()}, 0o600)


def letters_of(path: Path, names: set[str]) -> set[InvitationId]:
    """Return all letters that were ever made for facilities of some names; raises as above."""
    return {
        InvitationId.parse(noted["id"])
        for noted in _read(path)
        if any(same_name(noted["name"], name) for name in names)
    }


def _read(path: Path) -> list[dict[str, str]]:
    beside = letters_beside(path)
    try:
        text = safe_paths.read_file(beside, _MOST_BYTES) if beside.exists() else b""
        lines = text.decode().splitlines()
        noted = [json.loads(line) for line in lines]
        for one in noted:
            InvitationId.parse(one["id"])
            str(one["name"])
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ConfigError(f"{beside} cannot be read, or is damaged; bring it back") from exc
    return noted
