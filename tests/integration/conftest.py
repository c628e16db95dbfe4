from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.nodes import Node, two_nodes


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Node]]:
    """Two paired nodes of two facilities, as real processes."""
    with two_nodes(tmp_path_factory.mktemp("nodes")) as pair:
        yield pair


@pytest.fixture
def ct_file() -> Path:
    from pydicom.data import get_testdata_file

    return Path(str(get_testdata_file("CT_small.dcm")))
