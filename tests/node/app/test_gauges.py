"""What is read when metrics are asked for."""

from pathlib import Path
from typing import Any

from node.app.gauges import NodeGauges
from node.chunks.storage import Requests


class Maintenance:
    """What a store says of itself."""

    def __init__(self, requests: dict[tuple[str, str], Requests]) -> None:
        self.requests = requests

    def chunk_requests(self) -> dict[tuple[str, str], Requests]:
        return self.requests


async def test_disk_is_told_always_and_an_object_store_where_there_is_one(tmp_path: Path) -> None:
    def told(requests: dict[tuple[str, str], Requests]) -> dict[str, Any]:
        maintenance: Any = Maintenance(requests)
        none: Any = None
        gauges = NodeGauges(tmp_path, maintenance, none, none, none, ())
        return {name: values for name, (_, values) in gauges._storage_gauges().items()}

    alone = told({})
    assert list(alone) == ["disk_free_bytes"]
    assert alone["disk_free_bytes"][()] > 0
    found = told({("put_object", "ok"): Requests(3, 0.5), ("get_object", "failed"): Requests(1, 9)})
    labels = (("operation", "put_object"), ("outcome", "ok"))
    assert found["chunk_requests"][labels] == 3
    assert found["chunk_request_seconds"][labels] == 0.5
    assert len(found["chunk_requests"]) == 2
