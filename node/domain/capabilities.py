"""Capabilities: features beyond those of every version; peers exchange them with every Hello.

A document with an unknown field that must be understood is refused (`node.documents.bodies`). So a
feature that only some versions understand is used only with peers that state the capability.
"""

import enum
from collections.abc import Iterable

MOST_READ, MOST_CHARACTERS = 64, 32


class Capability(enum.StrEnum):
    """One thing that a node understands; the name is on the wire and is never given again."""

    ATTACHMENTS = "attachments"
    """Manifests that name files that are not DICOM."""

    JPEG_LS = "jpeg-ls"
    """Chunks with JPEG-LS in them: where its library is installed."""


def known(names: Iterable[str]) -> frozenset[Capability]:
    """Return what a peer says and this version knows; the rest means nothing here.

    Args:
        names: As they came; their number and length are bounded by the message's.
    """
    said = {name for name in list(names)[:MOST_READ] if len(name) <= MOST_CHARACTERS}
    return frozenset(one for one in Capability if one in said)
