"""One command's connection to its node."""

import getpass
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import trio_asyncio
from emix.admin.v1 import admin_pb2 as pb
from google.protobuf.message import Message

from node.errors import NodeError, PeerUnreachable, UsageError, ungrouped
from node.rpc.calling import Channel, Stream, open_channel
from node.rpc.methods import Method, methods

T = TypeVar("T")
DEFAULT_HOME = "~/.emix"

_METHODS: dict[str, Method[Any, Any]] = {
    f"{service.name}.{m.name}": m
    for service in pb.DESCRIPTOR.services_by_name.values()
    for m in methods(service)
}


class Client:
    """Calls of the admin services, by `Service.Method`."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._metadata = (("emix-operator", operator()),)

    async def call(self, name: str, request: Message) -> Any:
        """Call a method that takes and returns one message."""
        return await self._channel.unary(_METHODS[name], request, metadata=self._metadata)

    @asynccontextmanager
    async def stream(
        self, name: str, request: Message | None = None
    ) -> AsyncGenerator[Stream[Any, Any]]:
        """Run a streaming call for the time of the block."""
        method = _METHODS[name]
        async with self._channel.stream(method, request, metadata=self._metadata) as stream:
            yield stream


def operator() -> str:
    """Return who runs the command, for the audit log: plain ASCII, as metadata must be."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = f"uid {os.getuid()}"
    return name.encode("ascii", "replace").decode()


def home_path(context: click.Context) -> Path:
    """Return the home that the command is about."""
    return Path(context.find_root().params.get("home") or DEFAULT_HOME).expanduser()


def run_with_node(context: click.Context, work: Callable[[Client], Awaitable[T]]) -> T:
    """Run `work` with a connection to the node and return what it returns.

    Raises:
        NodeError: what the node raised; `PeerUnreachable` with advice if it does not run.
    """
    home = home_path(context)
    socket = home / "admin.sock"
    if not (home / "keyring").exists():
        raise UsageError(
            f"{home} is not a node's home; make one with `emix init`, or name it with --home"
        )
    if not socket.exists():
        raise PeerUnreachable(f"no node runs in {home}; start it with `emix serve`")

    async def main() -> T:
        async with open_channel(f"unix:{socket.resolve()}") as channel:
            return await work(Client(channel))

    try:
        with ungrouped():
            result: T = trio_asyncio.run(main)
        return result
    except PeerUnreachable as exc:
        raise PeerUnreachable(f"the node in {home} does not answer; is it running?") from exc


def run_call(context: click.Context, name: str, request: Message) -> Any:
    """Call one method of the node and return its answer."""
    return run_with_node(context, lambda client: client.call(name, request))


def exit_with(error: NodeError) -> None:
    """Print an error for people and end the command with its status."""
    click.echo(f"emix: {error}", err=True)
    raise SystemExit(error.exit_code)


__all__: Sequence[str] = ("Client", "exit_with", "home_path", "run_call", "run_with_node")
