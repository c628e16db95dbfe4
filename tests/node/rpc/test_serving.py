"""Serving: a call that fails, in whatever way, ends alone."""

import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
import trio
from emix.exchange.v1 import exchange_pb2 as pb
from grpc_health.v1 import health_pb2

from node.errors import (
    Conflict,
    NodeError,
    NotFound,
    PeerRefused,
    PeerUnreachable,
    ProtocolError,
    RemoteProtocolError,
    StoreDenied,
)
from node.rpc.bounds import SMALL, Bound
from node.rpc.calling import Channel, open_channel
from node.rpc.methods import method, methods
from node.rpc.options import merged
from node.rpc.serving import Call, Handler, Service, allow_all, serve
from node.rpc.standard import health_service
from tests.support.loop import run

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


class NoDoor:
    """Bounds nothing."""

    def drop(self, address: str) -> None:
        """End nothing."""


def test_who_comes_from_outside_is_told_nothing_of_this_machine(tmp_path: Path) -> None:
    why = f"{tmp_path}/metadata.db belongs to root (uid 0) with mode 0644"

    async def denied(_: Call[Any]) -> None:
        raise StoreDenied(why)

    async def told(door: NoDoor | None) -> str:
        address = f"unix:{tmp_path / 'socket'}"
        service = Service(SERVICE, handling(denied), allow_all)
        async with serve([service], address, door=door), open_channel(address) as channel:
            with pytest.raises(StoreDenied) as caught:
                await channel.unary(HELLO, pb.HelloRequest())
        return str(caught.value)

    async def work() -> None:
        said = await told(NoDoor())
        assert said == "that node's store failed; its log says more"
        assert await told(None) == why

    run(work)


def test_guard_is_asked_before_anything_of_the_request_is_read(tmp_path: Path) -> None:
    """Whoever is refused is refused for that, whatever was sent, and if nothing was sent."""

    async def nobody(_: Call[Any]) -> None:
        raise PeerRefused("not you")

    async def work() -> None:
        address = f"unix:{tmp_path / 'socket'}"
        service = Service(SERVICE, handling(fail), nobody)
        async with serve([service], address):
            said = await trio.to_thread.run_sync(_call_raw, address)
        assert said == {m.name: ["not you"] * 3 for m in methods(SERVICE)}

    run(work)


def _call_raw(address: str) -> dict[str, list[str]]:
    """Call every method with bytes that are no message, with too many, and with none."""
    said: dict[str, list[str]] = {}
    never_ends = threading.Event()
    with grpc.insecure_channel(address, [("grpc.max_send_message_length", -1)]) as channel:
        for m in methods(SERVICE):
            for bodies in ([b"\xff"], [b"x" * 60_000], iter(never_ends.wait, None)):
                call = channel.stream_stream(m.path)(iter(bodies), timeout=30)
                said.setdefault(m.name, []).append(call.details())
        never_ends.set()
    return said


def test_message_is_bounded_for_each_method_and_for_the_door(tmp_path: Path) -> None:
    seen: list[int] = []

    async def take(call: Call[Any]) -> pb.HelloResponse:
        seen.append(len(call.request.software))
        return pb.HelloResponse()

    async def work() -> None:
        address = f"unix:{tmp_path / 'socket'}"
        bounds = {"Hello": Bound(100), "Carry": Bound(1000)}
        async with (
            serve([Service(SERVICE, handling(take), allow_all, bounds)], address),
            open_channel(address) as channel,
        ):
            await channel.unary(HELLO, pb.HelloRequest(software="x" * 98))
            with pytest.raises(ProtocolError, match="at most 100 are accepted"):
                await channel.unary(HELLO, pb.HelloRequest(software="x" * 99))
            with pytest.raises(NodeError, match="larger than max"):
                await channel.unary(HELLO, pb.HelloRequest(software="x" * SMALL.size))
        assert seen == [98]

    run(work)


def test_requests_on_their_way_are_bounded_for_each_caller_and_in_time(tmp_path: Path) -> None:
    async def guard(call: Call[Any]) -> None:
        call.account = call.metadata["who"]

    async def work() -> None:
        address = f"unix:{tmp_path / 'socket'}"
        service = Service(SERVICE, handling(fail), guard)
        async with serve([service], address, requests_of_caller=2, request_seconds=0.5):
            assert await trio.to_thread.run_sync(_wait_with_requests, address) == (
                ["no request arrived within 0 s"] * 2 + ["too many requests at once; try again"],
                "OK",
            )

    run(work)


def _wait_with_requests(address: str) -> tuple[list[str], str]:
    never_ends = threading.Event()
    me, other = (("who", "me"),), (("who", "other"),)
    with grpc.insecure_channel(address) as channel:
        call = channel.stream_stream(HELLO.path)
        running = [call(iter(never_ends.wait, None), timeout=30, metadata=me) for _ in range(3)]
        done = channel.unary_unary(HELLO.path).with_call(b"", timeout=30, metadata=other)[1]
        said = sorted(one.details() for one in running)
        never_ends.set()
        return said, done.code().name


def test_channel_takes_no_method_whose_answers_may_be_larger(tmp_path: Path) -> None:
    large = method(SERVICE, "Hello", pb.HelloRequest, pb.HelloResponse, answer=Bound(2**20))

    async def work() -> None:
        async with open_channel(f"unix:{tmp_path / 'socket'}") as channel:
            with pytest.raises(TypeError, match="may answer more"):
                await channel.unary(large, pb.HelloRequest())

    run(work)


def test_answer_over_its_bound_is_not_parsed(tmp_path: Path) -> None:
    async def answer(_: Call[Any]) -> pb.HelloResponse:
        return pb.HelloResponse(lists=[pb.KnownList()] * 5000)

    async def work() -> None:
        address = f"unix:{tmp_path / 'socket'}"
        async with (
            serve([Service(SERVICE, handling(answer), allow_all)], address),
            open_channel(address) as channel,
        ):
            with pytest.raises(RemoteProtocolError, match="more than 4096 fields"):
                await channel.unary(HELLO, pb.HelloRequest())

    run(work)


def test_options_are_given_once_and_the_last_holds() -> None:
    found = merged([("a", 1), ("b", 2)], [("a", 3)], [("c", 4)])
    assert found == [("a", 3), ("b", 2), ("c", 4)]


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
