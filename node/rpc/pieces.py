"""A long document as a stream of small requests, so that no server accepts large messages."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import trio

from node.errors import PeerBusy, PeerTimeout, RemoteProtocolError
from node.rpc.serving import Call

PIECE_BYTES = 32 * 1024
_SECONDS = 60.0


def pieces(data: bytes) -> Iterator[bytes]:
    """Yield a document's pieces; one, if it is empty."""
    for i in range(0, max(len(data), 1), PIECE_BYTES):
        yield data[i : i + PIECE_BYTES]


class Gathering:
    """Puts documents together; a place is reserved for each before its first byte is kept."""

    def __init__(self, most_bytes: int, *, of_caller: int, in_all: int) -> None:
        self._most_bytes = most_bytes
        self._most_of_caller = of_caller
        self._most_in_all = in_all
        self._places: Counter[str] = Counter()

    async def gather(self, call: Call[Any], piece_of: Callable[[Any], bytes]) -> tuple[Any, bytes]:
        """Return the first request of a call, and the document that all of them make.

        Raises:
            NodeError: it is too long or does not come in time, or too many come at once.
        """
        with self._place(call.account), trio.move_on_after(_SECONDS):
            first = request = await call.read()
            if first is None:
                raise RemoteProtocolError("the call ended without a request")
            parts, size = [], 0
            while request is not None:
                parts.append(piece_of(request))
                size += len(parts[-1])
                if size > self._most_bytes or not parts[-1]:
                    raise RemoteProtocolError(
                        f"the document has an empty piece, or more than {self._most_bytes} bytes"
                    )
                request = await call.read()
            return first, b"".join(parts)
        raise PeerTimeout(f"the document did not arrive within {_SECONDS:.0f} s")

    @contextmanager
    def _place(self, account: str) -> Iterator[None]:
        mine = self._places[account]
        if mine >= self._most_of_caller or self._places.total() >= self._most_in_all:
            raise PeerBusy("too many documents are sent at once; try again in a minute", 60)
        self._places[account] += 1
        try:
            yield
        finally:
            self._places[account] -= 1
            self._places = +self._places
