"""Prometheus metrics: numbers only, never an ID, never patient data."""

import socket
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
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


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    """An HTTP server that, unlike the library's, does not look up its host name at start.

    With an unresponsive resolver, that would delay the start by many seconds.
    """

    daemon_threads = True

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()


class _IPv6Server(_Server):
    address_family = socket.AF_INET6


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing: standard error is the log's."""


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
        server = make_server(
            host.strip("[]"),
            int(port),
            make_wsgi_app(registry),
            _IPv6Server if ":" in host else _Server,
            handler_class=_Quiet,
        )
    except OSError as exc:
        raise ConfigError(f"[metrics] listen: {listen} cannot be bound ({exc.strerror})") from exc
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
