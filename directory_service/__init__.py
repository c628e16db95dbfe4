"""The directory of a regional network: who is who, where, and a bell and a relay between them."""
