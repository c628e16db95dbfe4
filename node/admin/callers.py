"""The caller of an admin service, as its door has authenticated it."""

import os
from pathlib import Path
from typing import Any

from node.domain.actors import Actor, Visitor
from node.errors import UsageError
from node.rpc.serving import Call


def may_name_paths(call: Call[Any]) -> bool:
    """Whether the node opens what its caller names; if not, the caller has to open it itself."""
    return _visitor(call).shares_rights_with(os.geteuid())


def check_path(path: str) -> None:
    """Check that a text from a caller can name a file.

    Raises:
        UsageError: it is not absolute, or contains a NUL character.
    """
    if not Path(path).is_absolute():
        raise UsageError("a path must be absolute")
    if "\0" in path:
        raise UsageError("a path must not contain a NUL character")


def actor_of(call: Call[Any]) -> Actor:
    """Return the actor: the user that the door has authenticated, and the command's own claim."""
    return _visitor(call).actor(call.metadata.get("emix-operator", ""))


def _visitor(call: Call[Any]) -> Visitor:
    if not isinstance(call.caller, Visitor):
        raise TypeError("the admin services need the door's guard")
    return call.caller
