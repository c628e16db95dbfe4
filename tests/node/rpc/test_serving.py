"""Serving: a call that fails, in whatever way, ends alone."""

from pathlib import Path
from typing import Any

import pytest
import trio
from emix.exchange.v1 import exchange_pb2 as pb

from node.errors import Conflict, NodeError, NotFound, PeerUnreachable
from node.rpc.calling import Channel, open_channel
from node.rpc.methods import method
from node.rpc.serving import Call, Handler, Service, allow_all, serve
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
        handlers = {"Hello": fail, "Watch": nothing, "Carry": nothing}
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
        handlers: dict[str, Handler] = {"Hello": hang, "Watch": nothing, "Carry": nothing}
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
