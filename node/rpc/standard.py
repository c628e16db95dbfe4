"""The standard services beside our own: health and reflection, for stock tools."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import trio
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from node.errors import NotFound, PeerRefused
from node.rpc.serving import Call, Guard, Service, allow_all

_LOOK_SECONDS = 1.0
_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_SERVICE_UNKNOWN = health_pb2.HealthCheckResponse(status="SERVICE_UNKNOWN")


def health_service(
    guard: Guard, services: Mapping[str, Callable[[], bool]], *, is_public: bool = False
) -> Service:
    """Return grpc.health.v1.Health; a request without a service name is answered with SERVING.

    Strangers cannot call Watch: a call that never ends would occupy a place for ever.

    Args:
        guard: Who may ask.
        services: Whether each service can do its work now.
        is_public: Whether strangers may ask.
    """

    def status(service: str) -> health_pb2.HealthCheckResponse:
        is_serving = not service or services[service]()
        word = "SERVING" if is_serving else "NOT_SERVING"
        return health_pb2.HealthCheckResponse(status=word)

    async def check(call: Call[Any]) -> health_pb2.HealthCheckResponse:
        service = call.request.service
        if service and service not in services:
            raise NotFound("no such service here")
        return status(service)

    async def watch(call: Call[Any]) -> None:
        if is_public:
            raise PeerRefused("health Watch is not supported; use Check")
        service, last = call.request.service, None
        while True:
            is_known = not service or service in services
            now = status(service) if is_known else _SERVICE_UNKNOWN
            if now != last:
                await call.write(now)
            last = now
            await trio.sleep(_LOOK_SECONDS)

    async def list_all(_: Call[Any]) -> Any:
        return health_pb2.HealthListResponse(statuses={s: status(s) for s in ("", *services)})

    descriptor = health_pb2.DESCRIPTOR.services_by_name["Health"]
    handlers = {"Check": check, "Watch": watch, "List": list_all}
    known = {name: handlers[name] for name in descriptor.methods_by_name}
    return Service(descriptor, known, guard)


def reflection_service(names: Sequence[str], guard: Guard) -> Service:
    """Return grpc.reflection.v1alpha.ServerReflection for the services of these names."""
    descriptor = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
    answers = reflection.ReflectionServicer([*names, descriptor.full_name])

    async def info(call: Call[Any]) -> None:
        while (request := await call.read()) is not None:
            for answer in answers.ServerReflectionInfo(iter([request]), None):
                await call.write(answer)

    return Service(descriptor, {"ServerReflectionInfo": info}, guard)


def with_standard_services(services: Sequence[Service]) -> list[Service]:
    """Return services for whoever may open a Unix socket, with health and reflection beside."""
    names = [service.descriptor.full_name for service in services]
    health = health_service(allow_all, dict.fromkeys(names, lambda: True))
    return [*services, health, reflection_service([*names, _HEALTH], allow_all)]
