"""Long lists in answers: a stream of pages, none of which is large."""

from collections.abc import Iterable
from typing import Any

from google.protobuf.message import Message

from node.rpc.serving import Call

PAGE_BYTES = 256 * 1024
"""The approximate size of a page; one entry may exceed it. Stock clients accept 4 MiB."""


class Pages:
    """The answer of a call that lists something, sent page by page."""

    def __init__(self, call: Call[Any], first: Message, field: str) -> None:
        """Prepare.

        Args:
            call: Whose response is a stream.
            first: The first page, with whatever is said beside the list.
            field: The list's name in a page.
        """
        self._call = call
        self._page = first
        self._field = field
        self._size = first.ByteSize()
        self._is_begun = False

    async def add(self, entries: Iterable[Message]) -> None:
        """Put entries into the list; raises as `Call.write` does."""
        for entry in entries:
            getattr(self._page, self._field).append(entry)
            self._size += entry.ByteSize()
            if self._size >= PAGE_BYTES:
                await self._send()

    async def end(self) -> None:
        """Send what is left; a list without entries is one empty page."""
        if self._size or not self._is_begun:
            await self._send()

    async def _send(self) -> None:
        await self._call.write(self._page)
        self._page, self._size, self._is_begun = type(self._page)(), 0, True


async def write_list(
    call: Call[Any], first: Message, field: str, entries: Iterable[Message]
) -> None:
    """Answer a call with a list whose entries are all at hand; see `Pages`."""
    pages = Pages(call, first, field)
    await pages.add(entries)
    await pages.end()
