"""Connections to peers: trust, both sides of the peer service, supervision."""
