"""What a sweep found goes to the page as well as to the terminal."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Return a function that notes one line of what a sweep found."""

    def note(line: str) -> None:
        with capsys.disabled():
            print(f"\n{line}")
        target = os.environ.get("EMIX_FIGURES")
        if target:
            with Path(target).open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    return note
