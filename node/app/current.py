"""The settings in force, and the policies that follow from them."""

from node.app.config import Config, changed_settings, taken_while_running
from node.domain.relays import RelayPolicy
from node.exchange.transfer.ports import ReceiverPolicy

_GIB = 2**30


class Current:
    """The present settings; each part reads them from here and keeps no copy.

    Attributes:
        config: All of them.
    """

    def __init__(self, config: Config) -> None:
        self.config = config

    def use(self, config: Config) -> list[str]:
        """Apply the settings that can change while the node runs; return those that changed."""
        before, self.config = self.config, taken_while_running(self.config, config)
        return changed_settings(before, self.config)

    def is_small(self) -> bool:
        """Whether JPEG-LS is used for what is sealed here, where it is smaller."""
        return self.config.compression == "small"

    def reports_deletions(self) -> bool:
        """Whether senders are told that what they sent was deleted here."""
        return self.config.report_deletions == "senders"

    def relay_policy(self) -> RelayPolicy:
        """Return which relays may be used."""
        return RelayPolicy(self.config.relay == "never", self.config.only_relays)

    def receiver_policy(self) -> ReceiverPolicy:
        """Return the policy for incoming offers."""
        return ReceiverPolicy(self.config.incoming == "ask", self.config.quota_gib * _GIB)
