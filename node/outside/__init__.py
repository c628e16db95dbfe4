"""Files outside the home: unencrypted exports, and backups of the node."""
