"""The directory of a regional network: identity, discovery, the bell, relay tickets, the relay."""
