"""Serving: a call that fails, in whatever way, ends alone."""

from pathlib import Path
from typing import Any

import pytest
import trio
from emix.exchange.v1 import exchange_pb2 as pb
from grpc_health.v1 import health_pb2

from node.errors import Conflict, NodeError, NotFound, PeerRefused, PeerUnreachable
from node.rpc.calling import Channel, open_channel
from node.rpc.methods import method, methods
from node.rpc.serving import Call, Handler, Service, allow_all, serve
from node.rpc.standard import health_service
from tests.integration.loop import run

SERVICE = pb.DESCRIPTOR.services_by_name["ExchangeService"]
HELLO = method(SERVICE, "Hello", pb.HelloRequest, pb.HelloResponse)


async def nothing(_: Call[Any]) -> None:
    """Answer nothing."""


async def fail(call: Call[Any]) -> pb.HelloResponse:
    match call.request.software:
        case "one error of ours":
            raise NotFound("no such thing")
        case "several of ours":
            raise ExceptionGroup("two tasks", [Conflict("first"), NotFound("second")])
        case "a defect":
            raise ValueError("Doe^Jane")
    return pb.HelloResponse(version=1)


def handling(hello: Handler) -> dict[str, Handler]:
    """Return handlers of the service, of which one does something."""
    return {m.name: nothing for m in methods(SERVICE)} | {"Hello": hello}


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("one error of ours", NotFound, "no such thing"),
        ("several of ours", Conflict, "first"),
        ("a defect", NodeError, "internal error; see the node's log"),
    ],
)
def test_caller_learns_what_went_wrong_and_the_next_call_is_served(
    tmp_path: Path, what: str, error: type[NodeError], message: str
) -> None:
    async def work() -> None:
        address = f"unix:{tmp_path / 'socket'}"
        handlers = handling(fail)
        async with (
            serve([Service(SERVICE, handlers, allow_all)], address),
            open_channel(address) as channel,
        ):
            with pytest.raises(NodeError) as caught:
                await channel.unary(HELLO, pb.HelloRequest(software=what))
            assert (type(caught.value), str(caught.value)) == (error, message)
            assert (await channel.unary(HELLO, pb.HelloRequest())).version == 1

    run(work)


def test_call_on_a_connection_that_is_closed_meanwhile_fails_as_unreachable(tmp_path: Path) -> None:
    started = trio.Event()

    async def hang(_: Call[Any]) -> pb.HelloResponse:
        started.set()
        await trio.sleep_forever()
        raise AssertionError

    async def work() -> None:
        address = f"unix:{tmp_path / 'socket'}"
        handlers = handling(hang)
        errors: list[NodeError] = []

        async def call(channel: Channel) -> None:
            try:
                await channel.unary(HELLO, pb.HelloRequest())
            except NodeError as exc:
                errors.append(exc)

        async with serve([Service(SERVICE, handlers, allow_all)], address):
            async with trio.open_nursery() as nursery:
                async with open_channel(address) as channel:
                    nursery.start_soon(call, channel)
                    await started.wait()
            await call(channel)  # it is closed by now
            with pytest.raises(PeerUnreachable):
                await channel.connect(1)
        assert [type(error) for error in errors] == [PeerUnreachable] * 2

    run(work)


def test_calls_may_go_on_for_a_while_at_the_end_unless_that_is_cancelled(tmp_path: Path) -> None:
    going_on = trio.Event()

    async def slow(call: Call[Any]) -> pb.HelloResponse:
        going_on.set()
        await trio.sleep(0.3 if call.request.software == "soon" else 60)
        return pb.HelloResponse(version=1)

    async def work() -> None:
        nonlocal going_on
        handlers = handling(slow)
        service = Service(SERVICE, handlers, allow_all)
        for what, is_cancelled in (("soon", False), ("never", True), ("at last", True)):
            going_on, answers = trio.Event(), list[int]()
            address = f"unix:{tmp_path / what}"

            async def call(what: str, address: str, answers: list[int]) -> None:
                async with open_channel(address) as channel:
                    try:
                        hello = pb.HelloRequest(software=what)
                        answers.append((await channel.unary(HELLO, hello)).version)
                    except NodeError:
                        answers.append(0)

            started = trio.current_time()
            async with trio.open_nursery() as nursery:
                with trio.CancelScope() as scope:
                    async with serve([service], address, grace_seconds=30):
                        nursery.start_soon(call, what, address, answers)
                        await going_on.wait()
                        if what == "never":
                            scope.cancel()
                            await trio.sleep_forever()
                        if what == "at last":  # while it waits for the call's end
                            scope.deadline = trio.current_time() + 0.5
            assert answers == [0 if is_cancelled else 1]
            assert trio.current_time() - started < 15

    run(work)


_HEALTH = {m.name: m for m in methods(health_pb2.DESCRIPTOR.services_by_name["Health"])}
SERVING, NOT_SERVING, UNKNOWN = (
    health_pb2.HealthCheckResponse.ServingStatus.Value(name)
    for name in ("SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
)


def test_strangers_ask_for_health_and_do_not_watch_it(tmp_path: Path) -> None:
    request = health_pb2.HealthCheckRequest()

    async def work() -> None:
        address = f"unix:{tmp_path / 'socket'}"
        async with (
            serve([health_service(allow_all, {}, is_public=True)], address),
            open_channel(address) as channel,
        ):
            answer = await channel.unary(_HEALTH["Check"], request)
            assert answer.status == SERVING
            async with channel.stream(_HEALTH["Watch"], request) as stream:
                with pytest.raises(PeerRefused):
                    await stream.read()

    run(work)


async def next_status(stream: Any) -> int:
    return int((await stream.read()).status)


def test_health_of_a_service_is_its_own_and_a_watch_tells_when_it_changes(tmp_path: Path) -> None:
    is_well = True

    async def work() -> None:
        nonlocal is_well
        address = f"unix:{tmp_path / 'socket'}"
        health = health_service(allow_all, {"a.Service": lambda: is_well})
        async with serve([health], address), open_channel(address) as channel:

            async def check(service: str) -> int:
                request = health_pb2.HealthCheckRequest(service=service)
                answer = await channel.unary(_HEALTH["Check"], request)
                return int(answer.status)

            request = health_pb2.HealthCheckRequest(service="a.Service")
            async with channel.stream(_HEALTH["Watch"], request) as stream:
                assert await next_status(stream) == SERVING
                is_well = False
                assert await next_status(stream) == NOT_SERVING
            assert [await check(name) for name in ("", "a.Service")] == [SERVING, NOT_SERVING]
            with pytest.raises(NotFound):
                await check("another.Service")
            request = health_pb2.HealthCheckRequest(service="another.Service")
            async with channel.stream(_HEALTH["Watch"], request) as stream:
                assert await next_status(stream) == UNKNOWN

    run(work)
