"""What a node understands beyond what every version does: peers tell each other with every Hello.

What must be understood and is not known is refused (`node.documents.bodies`); so what only some
versions understand is not sent to a peer that does not say that it does.
"""

import enum
from collections.abc import Iterable, Sequence

MOST_READ, MOST_CHARACTERS = 64, 32


class Capability(enum.StrEnum):
    """One thing that a node understands; the name is on the wire and is never given again."""

    ATTACHMENTS = "attachments"
    """Manifests that name files that are not DICOM."""


OURS: Sequence[str] = tuple(Capability)
"""What this version tells peers."""


def known(names: Iterable[str]) -> frozenset[Capability]:
    """Return what a peer says and this version knows; the rest means nothing here.

    Args:
        names: As they came; their number and length are bounded by the message's.
    """
    said = {name for name in list(names)[:MOST_READ] if len(name) <= MOST_CHARACTERS}
    return frozenset(one for one in Capability if one in said)
