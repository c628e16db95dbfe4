"""What a confined process prepares before it looks at a file, and what it may compute then."""

import codecs
import signal
from contextlib import suppress

from pydicom.charset import python_encoding

BASE_SECONDS, SECONDS_A_MIB = 5.0, 5.0
"""What one file, or one window of it, may take: many times what the walk's own bounds leave
possible (*measured*: 1.5 s a MiB), since machines differ. It ends a parser that has gone astray,
also when the node has gone."""


def load_codecs() -> None:
    """Load every text codec that a file can ask for, before files can no longer be opened."""
    for name in set(python_encoding.values()):
        with suppress(LookupError):
            codecs.lookup(name)


def limit_time(size: int) -> None:
    """Let the kernel end this process if what comes next takes too much computing."""
    signal.setitimer(signal.ITIMER_PROF, BASE_SECONDS + SECONDS_A_MIB * size / 2**20)
