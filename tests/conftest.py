"""For all tests: what takes minutes is begun first, and no single example is timed."""

import hypothesis
import pytest

hypothesis.settings.register_profile("emix", deadline=None)
hypothesis.settings.load_profile("emix")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
