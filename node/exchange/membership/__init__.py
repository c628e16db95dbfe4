"""Trust between facilities: pairing, networks, and remembered records of their members."""
