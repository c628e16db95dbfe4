"""Who asks, in tests."""

from node.domain.actors import Actor, Door, Role


def actor(name: str) -> Actor:
    """Return somebody at the admin socket."""
    return Actor(Door.ADMIN, name, frozenset({Role.ADMIN}))
