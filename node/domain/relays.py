"""Which relays a node may use."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RelayPolicy:
    """Whether a node may be reached through relays, and through which.

    Attributes:
        is_never: No relay may be used.
        only: The only relays that may be used, `host:port`; empty for all that the network names.
    """

    is_never: bool = False
    only: tuple[str, ...] = ()

    def allows(self, relay: str) -> bool:
        """Whether a relay may be used."""
        return not self.is_never and (not self.only or relay in self.only)


ANY_RELAY = RelayPolicy()
