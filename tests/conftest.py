"""For all tests: the long ones begin first, no example is timed, no failed sync stays noted."""

import hypothesis
import pytest

from node import failure

hypothesis.settings.register_profile("emix", deadline=None)
hypothesis.settings.load_profile("emix")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget a failed sync of an earlier test, which is noted for the life of a process."""
    monkeypatch.setattr(failure, "_failure", failure._Failure())
