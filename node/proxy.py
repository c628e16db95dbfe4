"""The HTTP proxy that leads out of this facility, as it is set."""

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from node.domain.display_text import plain_text
from node.errors import ConfigError
from node.system import safe_paths


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy.

    Attributes:
        address: `host:port`.
        credentials: `user:password` for Basic authentication (RFC 7617); empty for none.
    """

    address: str
    credentials: str = field(default="", repr=False)

    @property
    def url(self) -> str:
        """The proxy as gRPC takes it."""
        user, _, password = self.credentials.partition(":")
        userinfo = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user else ""
        return f"http://{userinfo}{self.address}"


def read_proxy(address: str, credentials_file: str) -> Proxy | None:
    """Return the proxy that leads out, with what it wants of us; None where `address` is empty.

    Raises:
        ConfigError: its credentials cannot be read, or others can read them too.
    """
    if not address or not credentials_file:
        return Proxy(address) if address else None
    path = Path(credentials_file)
    try:
        is_open = path.stat().st_mode & 0o077
        credentials = plain_text(safe_paths.read_file(path, 4096)).strip()
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{path}, the proxy's credentials, cannot be read") from exc
    if is_open:
        raise ConfigError(f"others can read {path}, the proxy's credentials: chmod 600 {path}")
    if ":" not in credentials or not credentials.isprintable():
        raise ConfigError(f"{path}, the proxy's credentials, must hold one line: user:password")
    return Proxy(address, credentials)
