"""Who asked for something, as the audit log has it.

What the door knows of a caller comes from the kernel; what the client says of itself stands beside
it, and is never taken for the other.
"""

import re
from dataclasses import dataclass

from node.domain.display_text import shown

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@\\$-]{0,63}")
_MOST_SAID = 64


@dataclass(frozen=True, slots=True)
class Visitor:
    """A process of this machine, as the kernel knows it.

    Attributes:
        uid: Its user, when it connected.
        name: What the machine calls that user; empty where it has no name for it.
        pid: The process that connected.
    """

    uid: int
    name: str
    pid: int

    def shares_rights_with(self, node_uid: int) -> bool:
        """Whether whatever a node of that user opens, this user could open as well.

        For anybody else a node opens no path: it would read and write with its own rights.
        """
        return self.uid in (0, node_uid)


def operator_text(visitor: Visitor, said: str) -> str:
    """Return who asks, such as `uid 1000 (alice), says: bob`."""
    name = visitor.name if _NAME.fullmatch(visitor.name) else "?"
    said = shown(said)[:_MOST_SAID]
    return f"uid {visitor.uid} ({name}){f', says: {said}' if said else ''}"
