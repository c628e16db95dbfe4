"""The metrics' page: served at once, whatever became of the resolver."""

import socket
import urllib.request
from typing import Any

import pytest

from node.telemetry.metrics import served_metrics


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_metrics_are_served_without_looking_a_name_up(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_up(*_: Any) -> Any:
        raise AssertionError("a name was looked up")

    monkeypatch.setattr(socket, "getfqdn", look_up)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with served_metrics(f"{host}:{port}", lambda: {"things": ("What there is", {(): 7.0})}):
        with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=10) as page:
            assert b"emix_things 7.0" in page.read()
