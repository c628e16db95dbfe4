"""An admin client for tests that watch a node closely: many calls on one connection."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from emix.admin.v1 import admin_pb2 as pb
from google.protobuf.message import Message

from node.rpc.bounds import OWN
from node.rpc.calling import Channel, Stream, open_channel
from node.rpc.methods import methods
from tests.support.nodes import Node

_METHODS = {
    f"{service.name}.{m.name}": m
    for service in pb.DESCRIPTOR.services_by_name.values()
    for m in methods(service, answer=OWN)
}


class Client:
    """Calls of the admin services, by `Service.Method`."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def call(self, name: str, request: Message) -> Any:
        """Call a method that takes one message; return its answer, the whole of a list."""
        method = _METHODS[name]
        if not method.is_response_stream:
            return await self._channel.unary(method, request)
        whole = method.response()
        async with self._channel.stream(method, request) as stream:
            while (page := await stream.read()) is not None:
                whole.MergeFrom(page)
        return whole

    @asynccontextmanager
    async def stream(
        self, name: str, request: Message | None = None
    ) -> AsyncGenerator[Stream[Any, Any]]:
        """Run a streaming call for the time of the block."""
        async with self._channel.stream(_METHODS[name], request) as stream:
            yield stream


@asynccontextmanager
async def admin(node: Node) -> AsyncGenerator[Client]:
    """Connect to a running node's admin socket for the time of the block."""
    address = f"unix:{(node.home / 'admin.sock').resolve()}"
    async with open_channel(address, largest_answer=OWN.size) as channel:
        yield Client(channel)


async def import_folder(client: Client, folder: Path) -> pb.ImportSummary:
    """Import a folder and return the summary."""
    async with client.stream("StudyService.Import") as stream:
        paths = pb.ImportPaths(paths=[str(folder)])
        await stream.write(pb.ImportRequest(paths=paths))
        while (event := await stream.read()) is not None:
            if event.WhichOneof("event") == "summary":
                summary: pb.ImportSummary = event.summary
                return summary
    raise AssertionError("the import ended without a summary")


async def transfer(client: Client, transfer_id: str) -> pb.Transfer:
    """Return one transfer as it now stands."""
    answer = await client.call("TransferService.ListTransfers", pb.ListTransfersRequest())
    found: pb.Transfer = next(t for t in answer.transfers if t.transfer_id == transfer_id)
    return found


async def wait_delivered(client: Client, transfer_id: str) -> pb.Transfer:
    """Wait until a transfer is final and return it."""
    request = pb.WatchTransfersRequest()
    async with client.stream("TransferService.WatchTransfers", request) as stream:
        while (event := await stream.read()) is not None:
            t: pb.Transfer = event.transfer
            if t.transfer_id == transfer_id and t.state in (
                "delivered",
                "failed",
                "declined",
                "cancelled",
            ):
                return t
    raise AssertionError("the watch ended")
