"""A clock that a test sets, for real processes: libfaketime."""

import os
from pathlib import Path

import pytest

from tests.support.nodes import Directory, Node


class Clock:
    """The time of every process that it is put on; only the time of day, no waiting."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.set_day(0)

    def set_day(self, day: int) -> None:
        """Have it be so many days later; fewer than 0 for earlier."""
        self._set(f"{day:+d}d")

    def set_hours(self, hours: int) -> None:
        """Have it be so many hours later."""
        self._set(f"{hours:+d}h")

    def _set(self, offset: str) -> None:
        following = self._file.with_suffix(".next")
        following.write_text(f"{offset}\n")
        following.rename(self._file)

    def put_on(self, server: Node | Directory) -> None:
        """Have a server and its commands go by this clock."""
        server.prefix = [
            "env",
            f"LD_PRELOAD={_library()}",
            f"FAKETIME_TIMESTAMP_FILE={self._file}",
            "FAKETIME_NO_CACHE=1",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
            "FAKETIME_DONT_RESET=1",
        ]


def _library() -> Path:
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        assert not os.environ.get("CI"), "CI needs the system package faketime"
        pytest.skip("needs the system package faketime")
    return found[0]
