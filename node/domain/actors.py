"""Actors: every use case takes the actor that requested it, and the audit log records its text.

The kernel identifies the user of a caller. What the client says about itself is recorded beside
that and is never trusted.
"""

import enum
import re
from dataclasses import dataclass

from node.domain.display_text import printable

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@\\$-]{0,63}")
_MOST_SAID = 64


class Door(enum.Enum):
    """By which way somebody asks."""

    NODE = "node"
    """The node asks by itself."""

    ADMIN = "admin"
    """The admin socket: a process of this machine."""

    HOME = "home"
    """A command that works on the home itself, in which no node runs."""


class Role(enum.StrEnum):
    """As what somebody asks; `node.access` says what each may do."""

    NODE = "node"
    """The node itself."""

    ADMIN = "admin"
    """Whoever may use the admin socket or the home: the node's user, root, the admin group."""


@dataclass(frozen=True, slots=True)
class Actor:
    """The requester of an action.

    Attributes:
        door: The way by which the request came.
        text: Its text in the audit log, such as `uid 1000 (alice), says: bob`.
        roles: Its roles; without any, nothing is allowed.
    """

    door: Door
    text: str
    roles: frozenset[Role] = frozenset()


NODE = Actor(Door.NODE, "node", frozenset({Role.NODE}))
"""The node itself: what it does without being asked."""


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

    @property
    def roles(self) -> frozenset[Role]:
        """Its roles: the socket admits only those who administer the node."""
        return frozenset({Role.ADMIN})

    def shares_rights_with(self, node_uid: int) -> bool:
        """Whether this user could itself open every path that a node of `node_uid` can open.

        For other users the node opens no path: it would lend them its own rights.
        """
        return self.uid in (0, node_uid)

    def actor(self, said: str) -> Actor:
        """Return this visitor as who asks; `said` is what its client says of itself."""
        name = self.name if _NAME.fullmatch(self.name) else "?"
        said = printable(said)[:_MOST_SAID]
        text = f"uid {self.uid} ({name}){f', says: {said}' if said else ''}"
        return Actor(Door.ADMIN, text, self.roles)


def at_home(said: str) -> Actor:
    """Return the actor of a command on a home; `said` is the text that the command gives."""
    return Actor(Door.HOME, said, frozenset({Role.ADMIN}))
