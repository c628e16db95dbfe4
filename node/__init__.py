"""The emix node: one facility's encrypted store and its direct exchange with peers."""
