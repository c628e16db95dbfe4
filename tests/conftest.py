"""For all tests: the long ones begin first, no example is timed, no failed sync stays noted."""

import os
from collections.abc import Iterator

import hypothesis
import pytest

from node.system import sync_failure

hypothesis.settings.register_profile("emix", deadline=None)
hypothesis.settings.load_profile("emix")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget what an earlier test changed for the life of a process: a failed sync, the umask."""
    monkeypatch.setattr(sync_failure, "_failure", sync_failure._Failure())
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)
