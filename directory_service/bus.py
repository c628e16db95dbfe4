"""What the processes of one directory tell each other: who has come, and what has changed.

News says what to look at, or carries what is small and passing (presence, a dial-back, a ticket);
what lasts is read from the database, and told in the transaction that keeps it. A process that may
have missed some looks at everything.
"""

import base64
import binascii
import hmac
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, Self

import trio

from node.crypto.digests import keyed_digest

_MAC_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class News:
    """One thing that another process should know.

    Attributes:
        process: Who says so.
        kind: member, node, list, tell; or one of `directory_service.presence`.
        ids: What it is about.
        data: What goes with it.
    """

    process: str
    kind: str
    ids: tuple[bytes, ...] = ()
    data: bytes = b""

    def encode(self, key: bytes) -> str:
        """Return it as text that only who has the key can make."""
        value = [self.process, self.kind, [i.hex() for i in self.ids], _b64(self.data)]
        text = json.dumps(value, separators=(",", ":"))
        return _mac(key, text) + text

    @classmethod
    def decode(cls, text: str, key: bytes) -> Self | None:
        """Return the news in a text; None for what another made, or a later version says.

        Whoever may connect to the database can notify: nothing is read before the key is proven.
        """
        mac, text = text[:_MAC_CHARACTERS], text[_MAC_CHARACTERS:]
        if not hmac.compare_digest(mac.encode("utf-8", "replace"), _mac(key, text).encode()):
            return None
        try:
            process, kind, ids, data = json.loads(text)
            found = tuple(map(bytes.fromhex, ids))
            return cls(str(process), str(kind), found, base64.b64decode(data, validate=True))
        except (ValueError, TypeError, binascii.Error):
            return None


Take = Callable[[News | None], Awaitable[None]]
"""Takes news of other processes; None where some may have been missed."""


class Bus(Protocol):
    """The way between the processes.

    Attributes:
        is_shared: Whether there can be others.
    """

    is_shared: bool

    async def tell(self, news: News) -> None:
        """Tell all other processes.

        Raises:
            StoreError: the way is broken just now.
        """

    async def run(self, take: Take) -> None:
        """Take what the others tell, for ever."""


class NoBus:
    """For a process that is alone."""

    is_shared = False

    async def tell(self, news: News) -> None:
        """There is nobody to tell."""

    async def run(self, take: Take) -> None:
        """There is nobody to listen to."""
        del take
        await trio.sleep_forever()


def _mac(key: bytes, text: str) -> str:
    return keyed_digest(key, text.encode("utf-8", "surrogatepass")).hex()


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
