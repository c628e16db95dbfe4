"""The standard services beside our own: health and reflection, for stock tools."""

from collections.abc import Sequence
from typing import Any

import trio
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from node.errors import PeerRefused
from node.rpc.serving import Call, Guard, Service


def health_service(guard: Guard, *, is_public: bool = False) -> Service:
    """Return grpc.health.v1.Health; whoever gets an answer is told SERVING.

    Strangers cannot watch: a call that never ends is a place that nobody else has.
    """
    serving = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)

    async def check(_: Call[Any]) -> health_pb2.HealthCheckResponse:
        return serving

    async def watch(call: Call[Any]) -> None:
        if is_public:
            raise PeerRefused("ask with Check; nobody watches here")
        await call.write(serving)
        await trio.sleep_forever()

    async def list_all(_: Call[Any]) -> Any:
        return health_pb2.HealthListResponse(statuses={"": serving})

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
