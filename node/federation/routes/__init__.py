"""Ways to a peer: dialling, the LAN, relays."""
