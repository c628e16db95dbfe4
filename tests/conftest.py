"""For all tests: what takes minutes is begun first, not waited for at the end."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
