"""How instances come in from files: read, examined, packed, recorded."""
