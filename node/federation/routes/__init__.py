"""Routes to peers: dialling, the LAN, relays."""
