"""What can be done with a node, and which roles may do it.

A door assigns roles to its callers. A deed that none of the caller's roles allows is denied.
"""

import enum
from collections.abc import Collection, Mapping
from types import MappingProxyType

from node.domain.actors import Role
from node.errors import Denied


class Deed(enum.Enum):
    """A kind of action; the value is its name in error messages."""

    SEE_NODE = "see the node's state"
    SEE_STUDIES = "see studies"
    SEE_AUDIT = "see the audit log and receipts"
    BRING_IN = "import studies"
    DECIDE = "decide about what waits for a person"
    SEND = "send studies to other facilities"
    TAKE_OUT = "export studies"
    DELETE = "delete studies"
    TRUST = "pair with facilities and join networks"
    KEEP = "maintain the node: backup, check, retention, clock, alarms"


_EVERYTHING = frozenset(Deed)

ALLOWED: Mapping[Role, Collection[Deed]] = MappingProxyType(
    {
        Role.NODE: _EVERYTHING,
        Role.ADMIN: _EVERYTHING,
    }
)
"""What each role may do; a role that is not here may do nothing."""


def check(roles: Collection[Role], deed: Deed) -> None:
    """Return if one of some roles allows a deed.

    Raises:
        Denied: none does.
    """
    if not any(deed in ALLOWED.get(role, ()) for role in roles):
        raise Denied(f"your role here does not let you {deed.value}")
