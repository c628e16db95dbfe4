"""Addresses of Unix sockets, as gRPC takes them."""

import os
from pathlib import Path
from urllib.parse import quote


def unix_address(path: Path) -> str:
    """Return the address of a socket for gRPC, which reads it as a URI: `%`, `?`, `#` are marks."""
    return f"unix:{quote(os.fsencode(path))}"
