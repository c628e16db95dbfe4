"""The caller of an admin service, as its door has authenticated it."""

import os
from typing import Any

from node.domain.actors import Actor, Visitor
from node.rpc.serving import Call


def may_name_paths(call: Call[Any]) -> bool:
    """Whether the node opens what its caller names; if not, the caller has to open it itself."""
    return _visitor(call).shares_rights_with(os.geteuid())


def actor_of(call: Call[Any]) -> Actor:
    """Return the actor: the user that the door has authenticated, and the command's own claim."""
    return _visitor(call).actor(call.metadata.get("emix-operator", ""))


def _visitor(call: Call[Any]) -> Visitor:
    if not isinstance(call.caller, Visitor):
        raise TypeError("the admin services need the door's guard")
    return call.caller
