"""Every method of every service of ours is served in one way: bytes first, after the guard."""

from collections.abc import Callable
from typing import Any

import pytest
from emix.admin.v1 import admin_pb2
from emix.directory.v1 import admin_pb2 as directory_admin_pb2
from emix.directory.v1 import directory_pb2
from emix.exchange.v1 import exchange_pb2
from emix.introduction.v1 import introduction_pb2
from google.protobuf.descriptor import ServiceDescriptor

from node.rpc.bounds import SMALL, Bound
from node.rpc.methods import methods
from node.rpc.serving import Service, _generic_handler, _Reading, allow_all
from node.rpc.standard import with_standard_services

_MODULES = (admin_pb2, directory_admin_pb2, directory_pb2, exchange_pb2, introduction_pb2)
_OURS: list[ServiceDescriptor] = [
    service for module in _MODULES for service in module.DESCRIPTOR.services_by_name.values()
]


async def _nothing(_: Any) -> None:
    """Answer nothing."""


def _served(descriptor: ServiceDescriptor, **bounds: Bound) -> Service:
    return Service(descriptor, {m.name: _nothing for m in methods(descriptor)}, allow_all, bounds)


class _Asked:
    """What gRPC asks a server for."""

    invocation_metadata: tuple[()] = ()

    def __init__(self, method: str) -> None:
        self.method = method


@pytest.mark.parametrize(
    "service",
    with_standard_services(list(map(_served, _OURS))),
    ids=lambda service: service.descriptor.full_name,
)
def test_no_method_lets_grpc_read_or_parse_a_request(service: Service) -> None:
    handler = _generic_handler(service, _Reading(1, 1.0), None)
    for m in methods(service.descriptor):
        found: Any = handler.service(_Asked(m.path))
        assert found.request_streaming, m.path
        assert found.request_deserializer is None, m.path
        assert found.response_streaming == m.is_response_stream, m.path


@pytest.mark.parametrize("descriptor", _OURS, ids=lambda descriptor: descriptor.full_name)
def test_a_method_takes_small_messages_unless_it_says_otherwise(
    descriptor: ServiceDescriptor,
) -> None:
    service = _served(descriptor)
    assert {service.bound(m.name) for m in methods(descriptor)} == {SMALL}
    assert service.largest_bytes == SMALL.size
    first: str = next(methods(descriptor)).name
    assert _served(descriptor, **{first: Bound(10**6)}).largest_bytes == 10**6
    make: Callable[[], Service] = lambda: _served(descriptor, NoSuchMethod=Bound(1))  # noqa: E731
    with pytest.raises(TypeError):
        make()
