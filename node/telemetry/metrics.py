"""Prometheus metrics: counts of what is here and what moves; never an id, never patient data."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from node.errors import ConfigError

Gauges = Mapping[str, tuple[str, Mapping[tuple[tuple[str, str], ...], float]]]
"""Metric name -> what it means, and values by labels."""


class _NodeCollector(Collector):
    def __init__(self, read: Callable[[], Gauges]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        for name, (meaning, values) in self._read().items():
            labels = sorted({label for key in values for label, _ in key})
            family = GaugeMetricFamily(f"emix_{name}", meaning, labels=labels)
            for key, value in values.items():
                found = dict(key)
                family.add_metric([found[label] for label in labels], value)
            yield family


@contextmanager
def served_metrics(listen: str, read: Callable[[], Gauges]) -> Iterator[None]:
    """Serve metrics over HTTP for the time of the block; nothing if `listen` is empty.

    `read` is called on a thread of the HTTP server's for each request: what it reads must not
    change meanwhile.
    """
    if not listen:
        yield
        return
    registry = CollectorRegistry()
    registry.register(_NodeCollector(read))
    host, _, port = listen.rpartition(":")
    try:
        server, thread = start_http_server(int(port), host.strip("[]"), registry)
    except OSError as exc:
        raise ConfigError(f"[metrics] listen: {listen} cannot be bound ({exc.strerror})") from exc
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
