"""Who exchanges with whom: pairing, networks and what is remembered of their members."""
