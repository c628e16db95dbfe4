"""Publish/subscribe between the processes of one directory: presence, and changes of records.

A `BusMessage` names what has changed, or carries small transient data (presence, a dial-back, a
ticket). Durable data is read from the database; its message is sent in the transaction that keeps
it. A process that may have missed messages reads everything again.
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
class BusMessage:
    """One message to the other processes.

    Attributes:
        process: The sending process.
        kind: member, node, list, watch; or a kind of `directory_service.presence`.
        ids: The ids that it concerns.
        data: Its payload.
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
        """Return the message in a text; None if it was not made with the key, or is not known.

        Every user of the database can send notifications, so nothing is parsed before the MAC is
        verified.
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


Take = Callable[[BusMessage | None], Awaitable[None]]
"""Takes news of other processes; None where some may have been missed."""


class Bus(Protocol):
    """The way between the processes.

    Attributes:
        is_shared: Whether there can be others.
    """

    is_shared: bool

    async def publish(self, message: BusMessage) -> None:
        """Tell all other processes.

        Raises:
            StoreError: the way is broken just now.
        """

    async def run(self, take: Take) -> None:
        """Take what the others publish, for ever."""


class NoBus:
    """For a process that is alone."""

    is_shared = False

    async def publish(self, message: BusMessage) -> None:
        """There is nobody to publish to."""

    async def run(self, take: Take) -> None:
        """There is nobody to listen to."""
        del take
        await trio.sleep_forever()


def _mac(key: bytes, text: str) -> str:
    return keyed_digest(key, text.encode("utf-8", "surrogatepass")).hex()


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
