"""Which relays a node may use."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RelayPolicy:
    """Whether, and by which relays, a node may be met where no direct way is found.

    Attributes:
        is_never: By none.
        only: By these alone, `host:port`; empty for all that the network names.
    """

    is_never: bool = False
    only: tuple[str, ...] = ()

    def allows(self, relay: str) -> bool:
        """Whether a relay may be used."""
        return not self.is_never and (not self.only or relay in self.only)


ANY_RELAY = RelayPolicy()
