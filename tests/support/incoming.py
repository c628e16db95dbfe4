"""Files to import that are not on a disk."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

from node.exchange.ports import ArchivedFile


class PlainFile:
    """What every file that is no archive has in common."""

    @property
    def is_archive(self) -> bool:
        return False

    def members(self) -> AbstractContextManager[Iterator[ArchivedFile]]:
        return nullcontext(iter(()))
